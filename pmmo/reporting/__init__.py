"""Make the tables, figures and the page from reports/numbers.json."""
