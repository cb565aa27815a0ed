"""What happens once, before a model exists."""
