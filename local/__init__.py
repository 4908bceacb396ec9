"""A request becomes images on this machine, with diffusers."""
