"""Bucket bounds to train with, and what stands out in the numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from mope.data.split import Bounds
from mope.errors import DataError
from mope.inspect.repeats import Repeats
from mope.inspect.tally import Group, Tally, percentiles

FloatArray = NDArray[np.float64]
MOST_VALUES = 1_000_000  # above it, lengths at as many evenly spaced ranks stand for all
ENOUGH = 50  # answers of a model whose median is told
USUAL = (33.0, 66.0, 99.0)
OTHERS = ((40.0, 70.0, 99.0), (25.0, 60.0, 99.0), (50.0, 75.0, 99.0), (20.0, 50.0, 99.0), (60.0, 80.0, 99.0),
          (10.0, 50.0, 99.0), (50.0, 90.0, 99.0), (70.0, 90.0, 99.0), (85.0, 95.0, 99.0))  # fmt: skip


def suggest(lengths: Counter[int]) -> tuple[Bounds | None, str]:
    """The usual percentiles where all three buckets are filled, else the others that part the answers most evenly.

    None, with the reason, where no cut fills three buckets.
    """
    values = _values(lengths)
    reason = ""
    try:
        found = Bounds.fit(values, USUAL)
        if _evenness(found, values) > 0.1:
            return found, ""
    except DataError as error:
        reason = error.came
    fitted = [bounds for levels in OTHERS if (bounds := _tried(values, levels))]
    if not fitted:
        return None, reason
    return max(fitted, key=lambda bounds: _evenness(bounds, values)), reason


def _values(lengths: Counter[int]) -> FloatArray:
    total = lengths.total()
    if total > MOST_VALUES:
        return np.round(percentiles(lengths, np.linspace(0, 100, MOST_VALUES).tolist()))
    found = sorted(lengths)
    return np.repeat(np.array(found, np.float64), [lengths[n] for n in found])


def _tried(values: FloatArray, levels: tuple[float, float, float]) -> Bounds | None:
    try:
        return Bounds.fit(values, levels)
    except DataError:
        return None


def _evenness(bounds: Bounds, values: FloatArray) -> float:
    """The share of the smallest bucket."""
    return float(np.bincount(bounds.bucket(values), minlength=3).min() / len(values))


def remarks(tally: Tally, repeats: Repeats, bounds: Bounds | None) -> list[str]:
    """Sentences on what one would want to know before training."""
    everything = next(iter(tally.merged().values()))
    said = [_capped(everything, bounds), _unsaid(everything, tally), _models(tally), _leaks(repeats)]
    return [sentence for sentence in said if sentence]


def _capped(everything: Group, bounds: Bounds | None) -> str:
    share = everything.capped / everything.answers
    if bounds is None or share <= 1 - bounds.percentiles[2] / 100:
        return ""
    return (
        f"{share:.1%} of the answers reached their limit: what is learned about long answers is where they were cut, "
        "not how long they are"
    )


def _unsaid(everything: Group, tally: Tally) -> str:
    if everything.bounded or not any(pile.round for pile in tally.piles()):
        return ""
    return "no limits are told, yet answers pile up at round lengths: name their column with --map cap=COLUMN"


def _models(tally: Tally) -> str:
    medians = [percentiles(g.lengths, [50])[0] for g in tally.merged("model").values() if g.answers >= ENOUGH]
    if len(medians) < 2 or min(medians) * 2 >= max(medians):
        return ""
    return (
        f"medians of {len(medians)} models run from {min(medians):,.0f} to {max(medians):,.0f} tokens: keep the "
        "model column"
    )


def _leaks(repeats: Repeats) -> str:
    row = repeats.normalised.row()
    leaks, tests = row["test_prompts_in_train"], row["test_prompts"]
    return (
        f"{leaks:,} of {tests:,} test prompts ({leaks / tests:.1%}) stand in the train part too"
        if leaks
        else ""
    )
