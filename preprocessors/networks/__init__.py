"""How trained networks of each kind are loaded, kept and run."""
