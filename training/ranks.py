"""Several processes of one run (Lightning's DDP, torchrun, SLURM): all compute, the first alone writes.

The folder of the run must be one that all of them see.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from mope.errors import TrainingError

PARENT = os.getppid()
POLL_S = 0.2


def first() -> bool:
    """Whether this process is the one that writes."""
    # Until the processes have met, the leader of another machine has rank 0 as well.
    return not getattr(rank_zero_only, "rank", 0) and os.environ.get("NODE_RANK", "0") in ("", "0")


def wait_for_all() -> None:
    """Go on when every process of the run is here; nothing in a run of one process."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def wait_for(path: Path) -> None:
    """Go on when the first process has written `path`; works before the processes have met, and has no time limit."""
    while not path.is_file():
        if first() or os.getppid() != PARENT:
            raise TrainingError(f"{path.name} was not written: the first process of the run is gone")
        time.sleep(POLL_S)
