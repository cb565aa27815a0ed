"""Facts that are computed, against numbers worked by hand."""

from __future__ import annotations

from torch import nn

from mope.data.split import Bounds
from mope.predictor.config import BundleConfig, EncoderConfig, TextConfig
from mope.training.facts import cost_facts, peak_memory


def test_flops_by_hand():
    """One layer, 2 wide, 4 inside, 3 tokens: 2 * 3 * (16 + 16) + 4 * 9 * 2 = 264 FLOPs."""
    shape = EncoderConfig(2, 3, 1, 4, 10, 40, 2)
    config = BundleConfig(
        Bounds(1, 2, 3), encoder=shape, shared_layers=2, router="encoder", text=TextConfig(4, 4, 4, 4)
    )
    cost = cost_facts(config, {"proxy": nn.Linear(2, 3)}, 3)
    assert cost["forward_flops"] == {"proxy": 3 * 264, "hard": 4 * 264, "soft": 6 * 264}
    assert cost["parameters"] == {"proxy": 9}


def test_peak_memory_is_that_of_a_python_process():
    assert 10_000_000 < peak_memory() < 1 << 40
