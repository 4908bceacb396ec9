"""Options that a request can do without: block cache, tiles, merged tokens, safety check."""
