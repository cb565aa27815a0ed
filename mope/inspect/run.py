"""One pass over the data, then everything that is said of it. Start reading at `inspect_data`.

Memory: each distinct prompt takes about 500 bytes (hashes by both ways of comparing, and of its group), each
answer of a prompt that was answered several times 4, each distinct length of a model in a source about 100, and
the sample for the learning curve at most `2 * sample` examples. Tables whose rows must be brought together
(turns of a conversation, samples of a prompt) are held one at a time by the reader, as when training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from mope.data.records import Example
from mope.data.split import PARTS, Bounds, part_of
from mope.errors import DataError
from mope.evaluation.bootstrap import Draws
from mope.inspect.advice import remarks, suggest
from mope.inspect.curve import Curve, learning_curve, plain
from mope.inspect.noise import Noise
from mope.inspect.repeats import Repeats
from mope.inspect.sample import Sample
from mope.inspect.tally import Tally

SAMPLE = 20_000


@dataclass
class Inspection:
    """What was found. `to_dict` is what `--json` prints."""

    tally: Tally = field(default_factory=Tally)
    repeats: Repeats = field(default_factory=Repeats)
    noise: Noise = field(default_factory=Noise)
    parts: Counter[str] = field(default_factory=Counter)
    bounds: Bounds | None = None
    usual_fails: str = ""
    floor: dict[str, object] | None = None
    curve: Curve | str = "not asked for"
    remarks: list[str] = field(default_factory=list)

    def add(self, example: Example) -> None:
        """Count one example."""
        self.tally.add(example)
        self.repeats.add(example)
        self.noise.add(example)
        self.parts[part_of(example.group)] += 1

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        bounds = None if self.bounds is None else asdict(self.bounds) | {"usual_fails": self.usual_fails}
        return {
            "all": next(iter(self.tally.merged().values())).row(),
            "groups": [
                {"source": source, "model": model, **group.row()}
                for (source, model), group in self.tally.groups.items()
            ],
            "parts": {part: self.parts[part] for part in PARTS},
            "piles": [pile._asdict() for pile in self.tally.piles()],
            **self.repeats.to_dict(),
            "bounds": bounds,
            "noise": self.floor,
            "curve": plain(self.curve),
            "remarks": self.remarks,
        }


def inspect_data(
    examples: Iterable[Example],
    *,
    sample: int = SAMPLE,
    curve: bool = True,
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
) -> Inspection:
    """Everything that can be said of the examples without training a model on them.

    `sample` bounds the examples that the learning curve is made of, `seed` is that of the resamples behind every
    interval, `step` hears of each size of the curve. Raises
    `DataError` where there is no example, `MissingExtra` where a curve is asked for and cannot be fitted.
    """
    found, chosen, draws = Inspection(), Sample(sample), Draws(seed=seed)
    for example in examples:
        found.add(example)
        chosen.add(example)
    if not found.parts:
        raise DataError(
            "no usable row", "rows with a prompt and an output length", "name the columns with --map"
        )
    everything = next(iter(found.tally.merged().values()))
    found.bounds, found.usual_fails = suggest(everything.lengths)
    found.floor = found.noise.to_dict(draws)
    found.remarks = remarks(found.tally, found.repeats, found.bounds)
    if curve:
        data = chosen.data()
        found.curve = learning_curve(data, chosen.share, draws, step)
    return found
