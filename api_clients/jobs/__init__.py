"""One paid job, from the request to the images: bought once, never lost."""
