"""An overlay: what a short log of one served model taught, applied to a bundle's answers. No weight is changed.

In the order of use, each part the identity where the log said nothing:

    reads_as  a known served model that the bundle is asked about instead
    router    log-odds added to the chances of the buckets, before the experts are mixed
    knots     a rising piecewise linear function of log1p(length), of slope `slope` beyond its ends
    ridge     a linear function of the request's features and the experts' answers, added to all quantiles
    spread    how far the quantiles stand from the median, relative to what the bundle said
    ends      moves of both ends of the 80 % interval for each bucket, on top of the bundle's calibration
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.errors import BundleError
from mope.predictor.router import softmax
from mope.types import BUCKETS

FORMAT = 1
FAR = 3.0  # standard deviations beyond which a feature says no more
READ = (0.1, 0.5, 0.9)  # levels of each expert that the ridge reads
MOST = 4096  # numbers in any list of an overlay
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Ridge:
    """`weights` [D] over the columns of `basis`, standardised by `center` and `scale` [D]; sums within +-`limit`."""

    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    limit: float

    def __call__(self, rows: FloatArray) -> FloatArray:
        """What is added to log1p(length), [n], for basis rows [n, D]."""
        if rows.shape[1] != len(self.weights):
            raise BundleError(
                f"an overlay over {len(self.weights)} columns, not {rows.shape[1]}",
                "one of this mope version",
            )
        level = (rows - np.array(self.center)) / np.array(self.scale)
        sums: FloatArray = np.clip(level, -FAR, FAR) @ np.array(self.weights)
        return np.clip(sums, -self.limit, self.limit)


@dataclass(frozen=True)
class Overlay:
    """What was learned for the served model `model`; `bundle` is the `identity` of the bundle it belongs to.

    `facts` holds what was measured while it was made. Raises `BundleError` for values that cannot be.
    """

    model: str
    bundle: str = ""
    answers: int = 0
    reads_as: str = ""
    router: tuple[float, ...] = (0.0, 0.0, 0.0)
    knots: tuple[tuple[float, float], ...] = ()
    slope: float = 1.0
    ridge: Ridge | None = None
    spread: float = 1.0
    ends: tuple[tuple[float, float], ...] = ((0.0, 0.0),) * len(BUCKETS)
    facts: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        knots = np.array(self.knots, np.float64).reshape(-1, 2)
        rising = all(a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(self.knots))
        ridge = self.ridge or Ridge((), (), (), 0.0)
        sizes = {len(ridge.center), len(ridge.scale), len(ridge.weights)}
        scalars = np.array([self.slope, self.spread, ridge.limit])
        lists = [knots.ravel(), np.array(self.router), np.array(self.ends).ravel(), scalars, *map(
            np.array, (ridge.center, ridge.scale, ridge.weights)
        )]  # fmt: skip
        for good, what in (
            (bool(self.model), "no model's name"),
            (all(np.isfinite(values).all() for values in lists), "numbers that are not finite"),
            (rising, "knots that do not rise"),
            (self.slope >= 0 and self.spread > 0 and ridge.limit >= 0, "a slope, spread or limit below 0"),
            (len(sizes) == 1 and all(s > 0 for s in ridge.scale), "a ridge that does not fit together"),
            (len(self.router) == len(BUCKETS), "router shifts of another number"),
            (np.array(self.ends).shape == (len(BUCKETS), 2), "moves of another shape"),
        ):
            if not good:
                raise _unfit(what)

    def chances(self, chances: FloatArray) -> FloatArray:
        """The router's chances [n, 3] with the model's own frequencies of the buckets."""
        if not any(self.router):
            return chances
        return softmax(np.log(np.maximum(chances, 1e-12)) + np.array(self.router))

    def corrected(self, logs: FloatArray) -> FloatArray:
        """The rising function of log1p(length), of any shape."""
        if not self.knots:
            return logs
        x, y = np.array(self.knots).T
        inside: FloatArray = np.interp(logs, x, y)
        beyond = np.minimum(logs - x[0], 0.0) + np.maximum(logs - x[-1], 0.0)
        inside += self.slope * beyond
        return inside

    def logs(self, logs: FloatArray, basis: FloatArray, middle: int) -> FloatArray:
        """Quantiles [n, K] of log1p(length) as this model's; `middle` is the column of the median."""
        found = self.corrected(logs)
        if self.ridge is not None:
            found = found + self.ridge(basis)[:, None]
        median = found[:, middle : middle + 1]
        return found if self.spread == 1.0 else median + self.spread * (found - median)

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "the overlay") -> Overlay:
        """What `to_json` wrote. Raises `BundleError` naming the file for anything else."""
        try:
            raw = json.loads(text)
            if raw.pop("format") != FORMAT:
                raise _unfit("another format number")
            return cls(**_read(raw))
        except BundleError as error:
            raise BundleError(f"{name}: {error.came}", error.expected, error.todo) from None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise BundleError(
                f"{name} cannot be read ({type(error).__name__})", "a file of `mope calibrate`", _TODO
            ) from None


def basis(
    features: NDArray[np.float32], experts: FloatArray, chances: FloatArray, levels: Sequence[float]
) -> FloatArray:
    """What the ridge reads of n requests, float64 [n, D].

    The features on a signed log scale (a missing one is 0), the experts' quantiles [n, E, K] at `READ`, and the
    router's log-odds from chances [n, 3].
    """
    known = np.nan_to_num(features.astype(np.float64), nan=0.0)
    said = experts[:, :, [list(levels).index(level) for level in READ]].reshape(len(features), -1)
    odds = np.log(np.maximum(chances, 1e-4))
    return np.concatenate([np.sign(known) * np.log1p(np.abs(known)), said, odds[:, 1:] - odds[:, :1]], axis=1)


def _read(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an overlay from JSON's; unknown ones and wrong types raise."""
    unknown = sorted(set(raw) - {f.name for f in fields(Overlay)})
    if unknown:
        raise _unfit(f"unknown keys {unknown}")
    ridge, answers = raw.get("ridge"), raw.get("answers", 0)
    words = [raw["model"], raw.get("bundle", ""), raw.get("reads_as", "")]
    if not all(isinstance(word, str) for word in words) or type(answers) is not int:
        raise _unfit("a name that is no text")
    found = dict(raw)
    found["knots"] = tuple((float(x), float(y)) for x, y in _list(raw.get("knots", ())))
    found["ends"] = tuple((float(a), float(b)) for a, b in _list(raw["ends"]))
    found["router"] = _numbers(raw["router"])
    found["slope"], found["spread"] = float(raw["slope"]), float(raw["spread"])
    if ridge is not None:
        parts = [_numbers(ridge[name]) for name in ("center", "scale", "weights")]
        found["ridge"] = Ridge(parts[0], parts[1], parts[2], float(ridge["limit"]))
    return found


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(map(float, _list(values)))


def _list(values: Any) -> Any:
    if len(values) > MOST or isinstance(values, (str, Mapping)):
        raise _unfit(f"a list of {len(values)}")
    return values


_TODO = "run `mope calibrate` again, or take the file away"


def _unfit(what: str) -> BundleError:
    return BundleError(f"an overlay with {what}", "a file of `mope calibrate`", _TODO)
