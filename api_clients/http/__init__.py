"""Everything that travels: calls and answers, uploads, downloads, images."""
