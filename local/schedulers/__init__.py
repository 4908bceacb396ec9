"""The eighteen schedulers, as diffusers and the papers define them."""
