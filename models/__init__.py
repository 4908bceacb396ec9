"""What a model file is, before anything is loaded: headers, families, and which file fits which model."""
