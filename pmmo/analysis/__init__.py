"""Means over cycles, intervals, claims, calibration: runs/ to reports/numbers.json."""
