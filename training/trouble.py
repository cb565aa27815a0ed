"""Running out of memory or disk, and files that rotted, told in one clear error."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from safetensors import SafetensorError

from mope.errors import TrainingError

MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
DISK = ("No space left", "PytorchStreamWriter")
DAMAGED = ("PytorchStreamReader", "failed finding central directory")


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What torch and the system raise inside the block as `TrainingError`; anything unknown passes as it is."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _memory(what, error) from error
    except (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        text = str(error)
        if any(words in text for words in MEMORY):
            raise _memory(what, error) from error
        if getattr(error, "errno", None) == errno.ENOSPC or any(words in text for words in DISK):
            raise TrainingError(f"{what}: the disk is full; free some space, then --resume") from error
        if isinstance(error, pickle.UnpicklingError) or any(words in text for words in DAMAGED):
            raise TrainingError(
                f"{what}: a checkpoint cannot be read ({text[:120]}); remove the stage's folder, then --resume"
            ) from error
        raise


def _memory(what: str, error: BaseException) -> TrainingError:
    return TrainingError(
        f"{what} ran out of memory ({str(error)[:120]}); checkpoints are kept. Free some, then --resume; "
        "or lower optim.batch (and raise optim.accumulate), which trains the stages anew"
    )
