"""Fits a generation into the memory of the device: offloading, and decoding in slices and tiles."""
