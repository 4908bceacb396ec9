"""Keys of the services: where they are stored, and how they are kept out of every text."""
