"""The published HDF5 layout: checked, read safely, written."""
