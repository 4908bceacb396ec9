"""The vocabulary of ControlStack: what a generation is, whatever runs it."""
