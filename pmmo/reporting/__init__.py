"""Tables, figures and the page, from reports/numbers.json."""
