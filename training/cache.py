"""Hidden states of the shared trunk, computed once and read by every expert: half-precision, on disk, mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mope.predictor.encoder import Stack
from mope.predictor.inputs import Inputs

STEP = 64  # texts encoded together


class HiddenCache:
    """Rows of a float16 file [tokens, H], cut by text as in `Inputs.starts`."""

    def __init__(self, path: Path, starts: NDArray[np.int64], width: int) -> None:
        self.starts = starts
        self.values = np.memmap(path, np.float16, "r", shape=(int(starts[-1]), width))

    def read(self, texts: NDArray[np.int64], mask: NDArray[np.int64]) -> Tensor:
        """Padded hidden states of `texts`, float32 [len(texts), S, H]."""
        out = np.zeros((*mask.shape, self.values.shape[1]), np.float32)
        for row, text in enumerate(texts):
            start, stop = self.starts[text], self.starts[text + 1]
            out[row, : stop - start] = self.values[start:stop]
        return torch.from_numpy(out)


def fill_cache(path: Path, trunk: Stack, inputs: Inputs, device: torch.device, half: bool) -> None:
    """Run the trunk over every text, shortest first, and write `path` (whole or not at all)."""
    width = next(trunk.parameters()).shape[-1]
    partial = path.with_suffix(".partial")
    order = np.argsort(inputs.sizes, kind="stable")
    trunk = trunk.to(device).eval()
    # Not through a map: a full disk would end the process there, here it is an error that can be told.
    with (
        partial.open("wb") as file,
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=half),
    ):
        for i in range(0, len(order), STEP):
            texts = order[i : i + STEP]
            ids, segments, mask = inputs.padded(texts)
            hidden = trunk(*(torch.from_numpy(a).to(device) for a in (ids, segments, mask)))
            block = hidden.float().cpu().numpy().astype(np.float16)
            for row, text in enumerate(texts):
                start, stop = inputs.starts[text], inputs.starts[text + 1]
                file.seek(int(start) * width * block.itemsize)
                file.write(block[row, : stop - start].tobytes())
    partial.rename(path)
