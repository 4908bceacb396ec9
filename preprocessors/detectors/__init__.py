"""The detectors of each modality, and the registry that knows them all."""
