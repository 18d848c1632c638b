"""`python -m pmmo embed`: plots and posters to vectors, by encoders that the user names."""
