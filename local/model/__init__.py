"""A model as a value: what it is loaded from, what its family can do, and the networks it keeps."""
