"""A user's own movies: import a table, predict with a trained model."""
