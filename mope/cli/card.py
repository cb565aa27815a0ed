"""`mope card`: a bundle's model card."""

from __future__ import annotations


def card() -> None:
    """Not there yet."""
