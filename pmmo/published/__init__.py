"""Numbers that were published: the paper and MM-IMDb."""
