"""Serving engines, one thin file each."""
