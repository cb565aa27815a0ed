"""What a made-up predictor says of a length it may look at: the truth, noise around it, a class, or a table's row."""

from __future__ import annotations

import csv
import json
from bisect import bisect_left
from collections.abc import Callable
from importlib.resources import files
from itertools import accumulate, pairwise
from math import isfinite, log, sqrt
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mope.errors import ConfigError, DataError
from mope.sim.sequence import Sequence
from mope.types import LengthForecast

LEVELS = (0.1, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
NO_SHARES = (0.0, 0.0, 0.0)
DRAWN = 4096
TAILS = tuple(
    log(0.5 / (1 - level)) if level > 0.5 else log(2 * level) for level in LEVELS
)  # of Laplace, scale 1
KINDS = (
    "exact, none, noise:TOKENS (mean absolute error), noise:PERCENT%, confusion:FILE (classes taken for each other)"
    " or table:FILE (a forecast for each request)"
)


class Guess(Protocol):
    """What is said of one request."""

    def __call__(self, seq: Sequence) -> LengthForecast:
        """Its forecast."""


class Draws:
    """Random numbers one at a time from a generator that is faster in blocks."""

    def __init__(self, seed: int, block: Callable[[np.random.Generator, int], NDArray[np.float64]]) -> None:
        self._rng = np.random.default_rng(seed)
        self._block = block
        self._left: list[float] = []

    def next(self) -> float:
        """The next number."""
        if not self._left:
            self._left = self._block(self._rng, DRAWN).tolist()[::-1]
        return self._left.pop()


def make_guess(predictor: str, seed: int, truth: bool = False) -> Guess | None:
    """A predictor given in one word, see `KINDS`; None for `none`. Raises `ConfigError` on other words."""
    kind, _, size = predictor.partition(":")
    if (kind in ("noise", "confusion", "table")) != bool(size) or kind not in (
        "exact", "none", "noise", "confusion", "table",
    ):  # fmt: skip
        raise ConfigError(f"predictor {predictor!r}", KINDS)
    if kind == "noise":
        relative, number = size.endswith("%"), _number(size.rstrip("%"), predictor)
        made: Guess = Percent(number / 100, seed) if relative else Noise(number, seed)
    elif kind == "confusion":
        made = Confusion(size, seed)
    elif kind == "table":
        made = Table(Path(size))
    else:
        made = Exact()
    return Exact() if truth else None if kind == "none" else made


def used_file(predictor: str) -> Path | None:
    """The file that a predictor reads."""
    kind, _, name = predictor.partition(":")
    if kind == "confusion":
        return _matrix_file(name)
    return Path(name) if kind == "table" else None


class Exact:
    """The truth."""

    def __call__(self, seq: Sequence) -> LengthForecast:
        """The true length, without doubt."""
        truth = float(seq.output)
        return LengthForecast(truth, truth, truth, LEVELS, (truth,) * len(LEVELS), "", NO_SHARES)


class Noise:
    """The truth plus Laplace noise of mean size `size` tokens, never below 1 token."""

    def __init__(self, size: float, seed: int) -> None:
        self._size, self._tails = size, [size * tail for tail in TAILS]
        self._draws = Draws(seed, _laplace)

    def __call__(self, seq: Sequence) -> LengthForecast:
        """The truth and an error."""
        value = max(seq.output + self._size * self._draws.next(), 1.0)
        points = tuple([value + tail if value + tail > 1.0 else 1.0 for tail in self._tails])
        return LengthForecast(value, points[0], points[-2], LEVELS, points, "", NO_SHARES)


class Percent:
    """Even between 1 - `size` and 1 + `size` of the truth, as VTC's `pred 50`."""

    def __init__(self, size: float, seed: int) -> None:
        self._size, self._draws = size, Draws(seed, _even)

    def __call__(self, seq: Sequence) -> LengthForecast:
        """The truth times a factor."""
        value = max(seq.output * (1 + self._size * self._draws.next()), 1.0)
        part = min(0.8 * self._size, 0.95)
        low, high = value / (1 + part), value / (1 - part)
        return LengthForecast(value, low, high, (0.1, 0.5, 0.9), (low, value, high), "", NO_SHARES)


class Confusion:
    """A classifier of lengths known by its confusion matrix: of a class it says that class's usual lengths.

    A JSON file: `bounds` [K - 1] (the largest length of each class but the last), `confusion` [K][K] (counts, a row
    for each true class) and, where known, `tokens`, `low` and `high` [K] (median, 10 and 90 % of the lengths in a
    predicted class); without, the middle and the ends of the class on a logarithmic scale. Or the facts.json of a
    bundle. A name without a folder is looked for among those that ship: `bert-lmsys`.
    """

    def __init__(self, name: str, seed: int) -> None:
        path = _matrix_file(name)
        try:
            found = _plain(json.loads(path.read_text(encoding="utf-8")))
            self.bounds = [float(bound) for bound in found["bounds"]]
            rows = [[float(count) for count in row] for row in found["confusion"]]
            self._said = _usual(found, self.bounds)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: {error!r}", "bounds and confusion; see `mope simulate --help`"
            ) from None
        good = all(len(row) == len(rows) and min(row) >= 0 and 0 < sum(row) < np.inf for row in rows)
        rising = all(0 < one < other for one, other in pairwise([*self.bounds, np.inf]))
        if len(rows) != len(self.bounds) + 1 or len(self._said) != len(rows) or not (good and rising):
            raise DataError(
                f"{path}: {len(self.bounds)} bounds, {len(rows)} rows", "K - 1 rising bounds, K rows"
            )
        self._shares = [[part / sum(row) for part in accumulate(row)] for row in rows]
        self._draws = Draws(seed, _even)

    def __call__(self, seq: Sequence) -> LengthForecast:
        """The usual length of a class drawn from the row of the true one."""
        row = self._shares[bisect_left(self.bounds, seq.output)]
        place = bisect_left(row, (self._draws.next() + 1) / 2)
        value, low, high = self._said[min(place, len(row) - 1)]
        return LengthForecast(value, low, high, (0.1, 0.5, 0.9), (low, value, high), "", NO_SHARES)


class Table:
    """Forecasts made before: a CSV with columns tokens, low, high and one for each level; row i is request i's."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open(newline="", encoding="utf-8") as file:
                head, *rows = list(csv.reader(file)) or [[]]
            self._levels = tuple(float(level) for level in head[3:])
            self._rows = [[float(cell) for cell in row] for row in rows]
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: {error}", "a table of forecasts") from None
        if head[:3] != ["tokens", "low", "high"] or any(len(row) != len(head) for row in self._rows):
            raise DataError(
                f"{path}: columns {', '.join(head)}", "tokens, low, high and levels, in every row"
            )

    def __call__(self, seq: Sequence) -> LengthForecast:
        """The row of its number. Raises `DataError` where the table is too short."""
        if seq.number > len(self._rows):
            raise DataError(f"{self._path}: {len(self._rows)} forecasts", f"one for request {seq.number}")
        tokens, low, high, *points = self._rows[seq.number - 1]
        return LengthForecast(tokens, low, high, self._levels, tuple(points), "", NO_SHARES)


def _matrix_file(name: str) -> Path:
    shipped = files("mope.sim").joinpath("scenarios", f"{name}.json")
    return Path(str(shipped)) if "/" not in name and shipped.is_file() else Path(name)


def _plain(found: Any) -> dict[str, Any]:
    """The parts of a confusion file; those of a bundle's facts are further down."""
    if "evaluation" not in found:
        return dict(found)
    evaluation, bounds = found["evaluation"], found["bounds"]
    matrix = evaluation["buckets"][evaluation["default"]]["confusion"]
    return {"bounds": [bounds["short"], bounds["medium"]], "confusion": matrix, "cap": bounds["cap"]}


def _usual(found: dict[str, Any], bounds: list[float]) -> list[tuple[float, float, float]]:
    """(median, 10 %, 90 %) that each class stands for."""
    if "tokens" in found:
        columns = [[float(value) for value in found[key]] for key in ("tokens", "low", "high")]
        said = list(zip(*columns, strict=True))
    else:
        edges = [1.0, *bounds, max(float(found.get("cap", 0)), 2 * bounds[-1])]
        said = [(sqrt(low * high), low, high) for low, high in pairwise(edges)]
    if not all(isfinite(value) and value >= 1 for row in said for value in row):
        raise ValueError("tokens, low and high of at least 1")
    return said


def _number(text: str, predictor: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e6:
        raise ConfigError(f"predictor {predictor!r}", KINDS)
    return value


def _laplace(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.laplace(0.0, 1.0, count)


def _even(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    return rng.uniform(-1.0, 1.0, count)
