"""Makes networks from model files: diffusers folders, single files, parts, and the layouts of tensor names."""
