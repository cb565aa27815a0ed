"""Launches of real passes, recorded from the engine itself at full size without a GPU or a weight."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("launches are recorded, not run", allow_module_level=True)

import torch

from mope.kernels import fused, launch, roofline
from mope.predictor.layout import TRUNK
from mope.predictor.made_up import SHAPES, made_up_config, made_up_inputs, made_up_networks, recorded
from mope.predictor.packing import pack
from mope.predictor.stacks import assembled
from mope.types import BUCKETS


@pytest.mark.parametrize(("name", "shared"), [("bert-base", 0), ("minilm", 0), ("minilm", 5)])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "gfx942", "sm_120"])
def test_a_pass_is_five_launches_a_layer_and_two(name, shared, arch):
    config = made_up_config(SHAPES[name], shared)
    networks = made_up_networks(config, [*([TRUNK] if shared else []), *BUCKETS], "meta")
    states = {key: module.state_dict() for key, module in networks.items()}
    weights = assembled(states, config, torch.bfloat16, torch.device("meta"))
    lengths = [128, 7, 40]
    given = pack(made_up_inputs(lengths, config), np.arange(3), np.tile([0, 1, 2], (3, 1)), 3)
    with launch.recording(arch) as record:
        recorded(fused, weights, given)
    e = config.encoder
    shape = roofline.Shape(e.hidden_size, e.num_hidden_layers, e.intermediate_size, 3, shared)
    expected = roofline.report(lengths, shape, 3)["launches"]
    assert len(record.launches) == expected <= 5 * e.num_hidden_layers + 3
