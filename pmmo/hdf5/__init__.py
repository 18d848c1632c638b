"""Check, read safely and write files in the published HDF5 layout."""
