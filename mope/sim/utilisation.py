"""What a run used of its hardware: three numbers that are not the same.

`busy`: share of the time in which an engine stepped. `mfu`: operations that the served tokens need over what the
GPUs could do at their peak. `mbu`: bytes that the steps read (weights once a step, the KV cache of each sequence)
over what the memory could deliver at its peak; only of loops in which every step counts as one. Work done again
after a preemption is left out of both.
"""

from __future__ import annotations

from typing import Any

from mope.mapper.profile import Profile
from mope.sim.log import Requests


def utilisation(
    log: Requests, profile: Profile, seconds: float, busy_s: float, steps: int | None
) -> dict[str, Any]:
    """busy, mfu and mbu over `seconds`; `steps` where they are known."""
    if not seconds > 0:
        return {"busy": 0.0, "mfu": 0.0, "mbu": None}
    prompt, output = log.prompt_tokens.astype(float), log.output_tokens.astype(float)
    later = (output - 1).clip(0)
    decoded = prompt * later + later * (later + 1) / 2  # tokens that the decode steps look back on
    shape, gpu = profile.shape, profile.gpu
    weights = shape.layers * shape.active_layer_weights
    head = float(shape.vocab * shape.hidden)
    pairs = float((prompt * prompt / 2 + decoded).sum())
    operations = 2.0 * weights * float((prompt + later).sum()) + 2.0 * head * float(output.sum())
    operations += 4.0 * shape.layers * shape.heads * shape.head_dim * pairs
    found = {
        "busy": busy_s / seconds,
        "mfu": operations / (seconds * profile.tp * gpu.flops_bf16),
        "mbu": None,
    }
    if steps is not None:
        moved = steps * shape.weight_bytes + profile.kv_bytes_per_token * float((prompt + decoded).sum())
        found["mbu"] = moved / (seconds * profile.tp * gpu.bandwidth)
    return found
