"""One generation, from the request to the images."""
