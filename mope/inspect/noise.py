"""What no forecast can know: how far the answers to one prompt lie apart."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from mope.data.records import Example
from mope.evaluation.bootstrap import Draws, Groups, mean_intervals
from mope.evaluation.metrics import leave_one_out_errors


@dataclass
class Noise:
    """Examples with several answers: 4 bytes an answer are kept, and the number of its group."""

    lengths: array[int] = field(default_factory=lambda: array("i"))
    sizes: array[int] = field(default_factory=lambda: array("i"))
    owners: array[int] = field(default_factory=lambda: array("i"))
    names: dict[str, int] = field(default_factory=dict)
    by_model: dict[str, list[int]] = field(default_factory=dict)

    def add(self, example: Example) -> None:
        """Keep the example's answers, where there are two or more."""
        if len(example.lengths) < 2:
            return
        self.by_model.setdefault(example.request.model or "", []).append(len(self.sizes))
        self.lengths.extend(example.lengths)
        self.sizes.append(len(example.lengths))
        self.owners.append(self.names.setdefault(example.group, len(self.names)))

    def to_dict(self, draws: Draws) -> dict[str, object] | None:
        """The floor, the error of each model's median and the part of it that can be explained; None without repeats.

        `floor` is the MAE in tokens of the leave-one-out median of the same prompt's other answers, each prompt
        weighing 1; `constant` that of the median over all answers of the same model. Intervals are over groups.
        """
        if not self.sizes:
            return None
        ends = np.cumsum(self.sizes)
        all_lengths = np.frombuffer(self.lengths, dtype=np.int32).astype(np.float64)
        prompts = np.split(all_lengths, ends[:-1])
        floor = np.array([leave_one_out_errors(lengths.tolist()).mean() for lengths in prompts])
        constant = np.zeros(len(prompts))
        for places in self.by_model.values():
            middle = float(np.median(np.concatenate([prompts[i] for i in places])))
            for i in places:
                constant[i] = np.abs(prompts[i] - middle).mean()
        groups = Groups.of(np.asarray(self.owners))
        found = mean_intervals({"floor": floor, "constant": constant}, np.ones(len(prompts)), groups, draws)
        explainable = 1 - found["floor"].value / found["constant"].value if found["constant"].value else 0.0
        return {
            "examples": len(prompts),
            "answers": len(all_lengths),
            "explainable": explainable,
            **{name: {"value": f.value, "low": f.low, "high": f.high} for name, f in found.items()},
        }
