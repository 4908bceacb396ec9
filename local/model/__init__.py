"""A model as a value: its source, the capabilities of its family, and the cache of its networks."""
