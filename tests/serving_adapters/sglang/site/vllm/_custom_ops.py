"""What SGLang imports by name."""


def rotary_embedding(*_: object) -> None:
    """Never called on a CPU."""
    raise NotImplementedError
