"""Model files become networks: layouts of names, diffusers folders, single files and parts."""
