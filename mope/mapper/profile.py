"""Hardware profiles: a model on GPUs, the law of its step time, where each number comes from and how far off it is.

A profile is named `MODEL@GPU` or `MODEL@NxGPU` for tensor parallelism over N. What ships was fitted from measured
tables (docs/profiles.md); any other pair of a known model and a known GPU borrows the fitted numbers of the nearest
profile and says that it is not calibrated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from mope.errors import ConfigError
from mope.files import write_text
from mope.mapper import gpus
from mope.mapper.gpus import Gpu
from mope.mapper.names import read_shipped
from mope.mapper.parts import Decode, Linear, Link, Overhead, Prefill
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct, Layered

FORMAT = 1
MEMORY_SHARE = 0.9  # of the GPU's memory that engines use by default
PARTS = {"linear": Linear, "attention": Decode, "reading": Prefill, "link": Link, "overhead": Overhead}
# Half-widths, in log units, of the 80 % interval of a time where the numbers were borrowed: what borrowing costs
# between profiles that were measured (0.08 and 0.32, docs/profiles.md), and 0.15 for the engine, in quadrature.
SAME_GPU = 0.17
OTHER_GPU = 0.35


@dataclass(frozen=True)
class Profile:
    """A model on `tp` GPUs of one kind.

    `spread` is the half-width, in log units, of the 80 % interval of a forecast time at a known length. `origin` and
    `error` say, by part of the law, where the numbers come from and their error on points held out.
    """

    name: str
    shape: ModelShape
    gpu: Gpu
    tp: int
    law: Layered | Direct
    calibrated: bool = True
    spread: float = 0.1
    origin: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shape.check_tp(self.tp)

    def check_memory(self) -> None:
        """Raise `ConfigError` where the weights leave no room for a KV cache."""
        if self.kv_tokens < 1:
            need, have = self.shape.weight_bytes / 2**30, self.memory / 2**30
            raise ConfigError(
                f"{self.name}: the weights take {need:.1f} GiB, usable are {have:.1f} GiB",
                "room for weights and KV cache",
                "use more GPUs (MODEL@NxGPU) or larger ones",
            )

    @property
    def memory(self) -> float:
        """Bytes that an engine may use on all GPUs together."""
        return MEMORY_SHARE * self.gpu.memory_bytes * self.tp

    @cached_property
    def kv_bytes_per_token(self) -> float:
        """Bytes of a token in the KV cache over all GPUs; heads are copied past the model's own number."""
        shape = self.shape
        return shape.kv_bytes_per_token * max(1.0, self.tp / shape.kv_heads)

    @property
    def kv_tokens(self) -> float:
        """Tokens that the KV cache holds."""
        return (self.memory - self.shape.weight_bytes) / self.kv_bytes_per_token

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {
            "format": FORMAT,
            "name": self.name,
            "model": _short(self.shape),
            "gpu": asdict(self.gpu),
            "tp": self.tp,
            "law": _plain_law(self.law),
            "calibrated": self.calibrated,
            "spread": self.spread,
            "origin": dict(self.origin),
            "error": dict(self.error),
        }

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all."""
        write_text(Path(path), json.dumps(self.to_json(), indent=1) + "\n")

    @classmethod
    def from_json(cls, data: Mapping[str, Any], origin: str = "profile") -> Profile:
        """From what `to_json` gives; `ConfigError` naming the key for anything else."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ConfigError(
                f"{origin}: no profile of format {FORMAT}", "a file that `mope fit-profile` wrote"
            )
        try:
            shape = ModelShape(**data["model"])
            gpu, tp = Gpu(**data["gpu"]), int(data["tp"])
            law = _read_law(data["law"], shape, gpu, tp)
            rest = {key: data[key] for key in ("calibrated", "spread", "origin", "error")}
            return cls(data["name"], shape, gpu, tp, law, **rest)
        except KeyError as error:
            raise ConfigError(
                f"{origin}: key {error} is missing", "a file that `mope fit-profile` wrote"
            ) from None
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{origin}: {error}", "a file that `mope fit-profile` wrote") from None

    @classmethod
    def load(cls, name: str | Path) -> Profile:
        """A profile file, a profile that ships, or `MODEL@[Nx]GPU` of known (or config.json) models and known GPUs.

        Raises `ConfigError` for what is none of these, and for a model that does not fit or cannot be cut.
        """
        text = str(name)
        profile = cls._find(text)
        profile.check_memory()
        return profile

    @classmethod
    def _find(cls, text: str) -> Profile:
        if text.endswith(".json") and os.path.isfile(text):
            return cls.from_json(_read(Path(text)), text)
        shape, gpu, tp = _parse(text)
        full = profile_name(shape, gpu, tp)
        return _shipped().get(full) or _borrow(full, shape, gpu, tp)


def profile_name(shape: ModelShape, gpu: Gpu, tp: int) -> str:
    """`llama-2-70b@8xa100-80g`."""
    return f"{shape.name}@{f'{tp}x' if tp > 1 else ''}{gpu.name}".lower()


def names() -> list[str]:
    """The profiles that ship."""
    return sorted(_shipped())


@cache
def _shipped() -> dict[str, Profile]:
    folder = files("mope.mapper").joinpath("profiles")
    shipped = [file.name for file in folder.iterdir() if file.name.endswith(".json")]
    found = (Profile.from_json(read_shipped(f"profiles/{name}"), name) for name in shipped)
    return {profile.name: profile for profile in found}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", "a JSON file that `mope fit-profile` wrote") from None


def _parse(name: str) -> tuple[ModelShape, Gpu, int]:
    model, at, hardware = name.rpartition("@")
    if not at or not model:
        raise ConfigError(
            f"hardware {name!r}",
            f"a profile file, or MODEL@GPU or MODEL@NxGPU; measured: {', '.join(names())}",
            "any known model and GPU can be paired; measure your own with `mope fit-profile`",
        )
    number, times, rest = hardware.partition("x")
    tp = int(number) if times and number.isdigit() else 1
    return ModelShape.load(model), gpus.known(rest if times and number.isdigit() else hardware), tp


def _borrow(name: str, shape: ModelShape, gpu: Gpu, tp: int) -> Profile:
    """The parts of the nearest measured law under this shape and GPU."""
    donor = nearest(shape, gpu, tp)
    if donor is None or not isinstance(donor.law, Layered):
        law, origin, spread = Layered(shape, gpu, tp), "defaults", OTHER_GPU
    else:
        law, origin = replace(donor.law, shape=shape, gpu=gpu, tp=tp), donor.name
        spread = SAME_GPU if same_chip(donor.gpu, gpu) else OTHER_GPU
    rates = f"datasheet rates of {gpu.name}; fitted shares of {origin}"
    return Profile(name, shape, gpu, tp, law, calibrated=False, spread=spread, origin={"all": rates})


def nearest(
    shape: ModelShape, gpu: Gpu, tp: int, among: Mapping[str, Profile] | None = None
) -> Profile | None:
    """The measured layered profile whose numbers fit best: same GPU first, then the most similar work per GPU."""

    def far(profile: Profile) -> tuple[bool, float]:
        size = profile.shape.layer_weights / profile.tp / (shape.layer_weights / tp)
        return not same_chip(profile.gpu, gpu), max(size, 1.0 / size)

    layered = [p for p in (among or _shipped()).values() if isinstance(p.law, Layered)]
    return min(layered, key=far, default=None)


def same_chip(one: Gpu, other: Gpu) -> bool:
    """A100-40g and A100-80g-pcie are the same chip with other memory and links."""
    return one.name.partition("-")[0] == other.name.partition("-")[0] and one.units == other.units


def _short(shape: ModelShape) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    return {f.name: getattr(shape, f.name) for f in fields(shape) if getattr(shape, f.name) != f.default}


def _plain_law(law: Layered | Direct) -> dict[str, Any]:
    if isinstance(law, Direct):
        return {"kind": "direct", **asdict(law)}
    return {"kind": "layered", **{key: asdict(getattr(law, key)) for key in PARTS}}


def _read_law(data: Mapping[str, Any], shape: ModelShape, gpu: Gpu, tp: int) -> Layered | Direct:
    parts = {key: value for key, value in data.items() if key != "kind"}
    if data["kind"] == "direct":
        return Direct(**{key: _rate(key, value) for key, value in parts.items()})
    if data["kind"] != "layered" or set(parts) != set(PARTS):
        raise ValueError(f"law of kind {data['kind']!r} with parts {', '.join(parts)}")
    built: dict[str, Any] = {
        key: kind(**{name: _rate(f"{key}.{name}", value) for name, value in parts[key].items()})
        for key, kind in PARTS.items()
    }
    return Layered(shape, gpu, tp, **built)


def _rate(name: str, value: Any) -> float:
    """A coefficient: no negative one, no NaN, no infinity makes sense anywhere."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise ValueError(f"{name} = {value!r}, expected a number of at least 0")
    return float(value)


def shipped() -> Iterator[Profile]:
    """Every profile that ships."""
    return iter(_shipped().values())
