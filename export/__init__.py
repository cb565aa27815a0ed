"""A finished bundle made into what others take."""
