"""The trained files of the detectors: what they are, where they lie, how they are fetched."""
