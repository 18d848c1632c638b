"""Bring the four columns here: from a file, a server or the synthetic generator."""
