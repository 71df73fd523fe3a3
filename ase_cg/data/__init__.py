"""Coarse-grained datasets: sources, the HDF5 file, splits, and graphs made of them."""
