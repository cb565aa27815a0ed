from __future__ import annotations

import inspect

import pytest

import mope
from mope import errors


def test_dir_shows_what_is_exported() -> None:
    assert dir(mope) == sorted(mope.__all__)


@pytest.mark.parametrize("name", mope.__all__)
def test_every_name_resolves_and_is_its_own(name: str) -> None:
    member = getattr(mope, name)
    assert name == "__version__" or member.__name__ == name


def test_every_error_is_exported() -> None:
    defined = {name for name, member in vars(errors).items() if inspect.isclass(member)}
    assert defined <= set(mope.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mope.nonsense
