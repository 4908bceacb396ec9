"""What is on the device at a time: offloading, and decoding in slices and tiles."""
