"""SGLang imports this on devices it does not know, and calls nothing of it there."""
