"""What every package may use: errors, atomic writes, progress, shared names."""
