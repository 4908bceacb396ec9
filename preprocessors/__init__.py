"""A picture becomes a control map: one module per detector family, one declared class per modality."""
