"""What exists for speed alone, behind drop-in names."""
