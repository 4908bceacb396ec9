"""Makes embeddings from prompts with weights."""
