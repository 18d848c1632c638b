"""Compute reports/numbers.json from runs/: means over cycles, intervals, claims, calibration."""
