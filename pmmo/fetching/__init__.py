"""Get the four columns from a file, a server or the synthetic generator."""
