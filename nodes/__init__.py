"""The ComfyUI face of the pack: schemas and short executes; the work stands elsewhere."""
