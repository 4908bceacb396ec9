"""Turn an image into a control map: one declared detector per modality, with one or more methods."""
