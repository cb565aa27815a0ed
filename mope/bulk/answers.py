"""What turns a batch of requests into the columns of the output, and how others plug in theirs.

A maker is a small frozen value that is sent to each process, opens there what it needs, and gives back a function
from requests to columns. `Lengths` and `Buckets` are the two that a bundle alone can make.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mope.predictor import layout, overlays
from mope.predictor.bundle import MoPE, as_trained
from mope.types import BUCKETS, LengthForecast, Request

Columns = dict[str, NDArray[Any]]
Answer = Callable[[Sequence[Request]], Columns]


class Maker(Protocol):
    """Picklable. `open` is called once in each process.

    The answer gives one value a request in every column, numbers (NaN where nothing is known) or text, and for
    no requests the same columns, empty. Prompts come whole, not cut to what the predictor reads.
    """

    @property
    def gpus(self) -> int:
        """GPUs of this machine that the answer would be computed on; 0: the CPU."""

    def settings(self) -> Mapping[str, object]:
        """Everything the columns depend on, as JSON values: a resumed run must have the same."""

    def open(self) -> Answer:
        """Load what is needed, on the device that this process was given."""


@dataclass(frozen=True)
class Lengths:
    """Tokens with their 80 % interval, the bucket, and its probabilities. Make one with `Lengths.of`."""

    folder: str
    backend: str
    threads: int
    digest: str
    gpus: int

    @classmethod
    def of(cls, source: str | Path | None = None, backend: str = "auto", threads: int = 1) -> Lengths:
        """By a bundle (folder, Hub id, None for the one that ships); "auto" takes PyTorch where there is a GPU."""
        bundle = MoPE.from_pretrained(source, backend=backend, threads=threads)
        name = bundle.backend.name
        if backend == "auto" and name != "torch" and _torch_weights(bundle) and _gpus("torch"):
            name = "torch"
        return cls(str(bundle.folder), name, threads, _digest(bundle), _gpus(name))

    def settings(self) -> Mapping[str, object]:
        """Bundle, backend, device, threads and the version of the runtime."""
        runtime = "torch" if self.backend == "torch" else "onnxruntime"
        return {
            "forecast": "lengths", "bundle": self.digest, "backend": self.backend, "threads": self.threads,
            "device": "gpu" if self.gpus else "cpu", runtime: _version(runtime),
        }  # fmt: skip

    def open(self) -> Answer:
        """The bundle's own forecast."""
        bundle = self.load()
        return lambda requests: length_columns(bundle.predict(list(requests)))

    def load(self) -> MoPE:
        """The bundle, on its threads."""
        if self.backend == "torch":
            import torch

            torch.set_num_threads(self.threads)  # else every process takes every core
        return MoPE.from_pretrained(self.folder, backend=self.backend, threads=self.threads)


@dataclass(frozen=True)
class Buckets:
    """The bucket and its probabilities by the lexical router alone: no tokenizer, no encoder."""

    folder: str
    digest: str
    gpus: int = 0

    @classmethod
    def of(cls, source: str | Path | None = None) -> Buckets:
        """By a bundle: folder, Hub id, None for the one that ships."""
        bundle = MoPE.from_pretrained(source)
        return cls(str(bundle.folder), _digest(bundle))

    def settings(self) -> Mapping[str, object]:
        """The bundle."""
        return {"forecast": "buckets", "bundle": self.digest, "numpy": np.__version__}

    def open(self) -> Answer:
        """The router of the bundle."""
        router = MoPE.from_pretrained(self.folder).lexical

        def answer(requests: Sequence[Request]) -> Columns:
            if not requests:
                return bucket_columns(np.zeros((0, len(BUCKETS))))
            return bucket_columns(router.probabilities([as_trained(request) for request in requests]))

        return answer


def length_columns(forecasts: Sequence[LengthForecast]) -> Columns:
    """tokens, low, high, bucket, p_short, p_medium, p_long."""
    columns: Columns = {
        name: np.array([getattr(f, name) for f in forecasts], np.float64)
        for name in ("tokens", "low", "high")
    }
    chances = np.array([f.probabilities for f in forecasts], np.float64).reshape(-1, len(BUCKETS))
    return columns | bucket_columns(chances)


def bucket_columns(probabilities: NDArray[np.floating[Any]]) -> Columns:
    """bucket, p_short, p_medium, p_long from probabilities [n, 3]."""
    columns: Columns = {"bucket": np.array(BUCKETS)[probabilities.argmax(1)]}
    return columns | {f"p_{name}": probabilities[:, place] for place, name in enumerate(BUCKETS)}


def _torch_weights(bundle: MoPE) -> bool:
    return (bundle.folder / layout.weights_file("medium")).is_file()


def _gpus(backend: str) -> int:
    """GPUs that this backend computes on here."""
    if backend != "torch":
        import onnxruntime as ort  # type: ignore[import-untyped]

        if "CUDAExecutionProvider" not in ort.get_available_providers():
            return 0
    if find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count()


def _digest(bundle: MoPE) -> str:
    """Stands for all of a bundle that a forecast depends on; config.json lists the hashes of the weights."""
    names = [layout.CONFIG, layout.CALIBRATION]
    names += sorted(
        f"{overlays.FOLDER}/{path.name}" for path in (bundle.folder / overlays.FOLDER).glob("*.json")
    )
    texts = [layout.read_text(bundle.folder, name) for name in names]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
