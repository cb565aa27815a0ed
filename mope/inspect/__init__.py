"""What a file of (prompt, answer length) rows is good for, before anything is trained on it."""
