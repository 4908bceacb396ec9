"""Model files before they are loaded: headers, families, folders, and which file fits which model."""
