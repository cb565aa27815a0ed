"""Records of output length: where they are read from and how they are cut."""
