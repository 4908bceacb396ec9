"""A prompt with weights becomes embeddings."""
