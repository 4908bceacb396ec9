"""What each service documents, as data and pure functions."""
