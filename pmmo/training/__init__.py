"""Train the cycles of a variant and write its folder."""
