"""A bundle that learns the model it serves: from a log, and from every finished request."""
