"""Several processes of one run (Lightning's DDP, torchrun, SLURM): all compute, the first alone writes."""

from __future__ import annotations

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only


def first() -> bool:
    """Whether this process is the one that writes."""
    return not getattr(rank_zero_only, "rank", 0)


def wait_for_all() -> None:
    """Go on when every process of the run is here; nothing in a run of one process."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
