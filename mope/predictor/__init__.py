"""From a prompt to a predicted output length."""
