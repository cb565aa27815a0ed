"""Presets: a config by name, which later words change."""

from __future__ import annotations

import pytest

from mope.equinox import make_policy
from mope.errors import ConfigError


def test_the_paper_s_numbers_have_a_name_whatever_the_defaults() -> None:
    config = make_policy("equinox:preset=paper").config
    assert (config.alpha, config.beta, config.delta) == (0.7, 0.3, 0.1)
    changed = make_policy("equinox:delta=0.5, preset=paper,resource=work").config
    assert (changed.alpha, changed.delta, changed.resource) == (0.7, 0.5, "work")
    assert make_policy("equinox:preset=paper", alpha=0.2).config.alpha == 0.2


@pytest.mark.parametrize("words", ["equinox:preset=best", "equinox:preset=", "vtc:preset=paper"])
def test_a_preset_that_is_not_known_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="preset"):
        make_policy(words)
