"""Where the work is done: which process takes which shards, on which device.

Three ways lead to the same loop (`mope.bulk.work`): one process; several that we start, each seeing one GPU or none;
several that `accelerate launch` or torchrun started. No collective operation is used on the way: the processes meet
in the work folder, so that one that is hours behind the others runs into no timeout of NCCL.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from mope.errors import ConfigError, MopeError
from mope.extras import require

TIMEOUT = timedelta(hours=12)  # the others wait while the first process reads the whole input once


@dataclass(frozen=True)
class Launched:
    """This process among those of a launcher; `state` is accelerate's."""

    index: int
    count: int
    state: Any

    def meet(self) -> None:
        """Go on when all are here."""
        self.state.wait_for_everyone()

    def leave(self) -> None:
        """No further meeting: from here on, nobody waits for a process in another way than by its shards."""
        import torch

        torch.distributed.destroy_process_group()


def launched(gpus: int) -> Launched | None:
    """This process's place where a launcher started several, with its device bound; else None."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if "LOCAL_RANK" not in os.environ or size < 2:
        return None
    require("torch", "predicting in several processes of a launcher")
    from accelerate import PartialState  # type: ignore[import-untyped]

    # Without `cpu` and without a GPU, accelerate takes each process to be alone.
    state = PartialState(cpu=not gpus, timeout=TIMEOUT)
    if state.num_processes != size:
        raise MopeError(f"a launcher started {size} processes, accelerate sees {state.num_processes}")
    return Launched(state.process_index, size, state)


def devices(gpus: int, processes: int | None = None) -> tuple[str, ...]:
    """The device of each process to start: a name for CUDA_VISIBLE_DEVICES, or "" for the CPU.

    One process a GPU, one on the CPU, or as many as asked for, spread over the GPUs in turn.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"{processes} processes", "at least 1")
    if not gpus:
        return ("",) * (processes or 1)
    require("torch", "predicting on a GPU")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = seen.split(",")[:gpus] if seen else [str(place) for place in range(gpus)]
    return tuple(names[place % gpus] for place in range(processes or gpus))


def bind(device: str) -> None:
    """Make `device` the one GPU that this process sees; before anything has touched CUDA."""
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
        from accelerate import PartialState

        PartialState()
