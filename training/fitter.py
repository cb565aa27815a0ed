"""What the stages of one run share: their keys, their feeds, the cached hidden states."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress

import mope
from mope.predictor.encoder import Stack
from mope.training.cache import HiddenCache, fill_cache
from mope.training.feed import Feed, FeedModule
from mope.training.fit import fit, precision_of
from mope.training.modules import StageModule
from mope.training.prepare import Prepared
from mope.training.ranks import first, wait_for
from mope.training.recipe import EpochsConfig
from mope.training.stages import key_of

GRID = 64  # points at which the mixture's distribution is compared with the truth


@dataclass(eq=False)
class Fitter:
    """Fits modules on the parts of prepared data."""

    ready: Prepared
    bars: Progress
    hidden: dict[str, HiddenCache] = field(default_factory=dict)

    def key(self, stage: str) -> str:
        """Data, code version and every setting that the stage (or one before it) reads."""
        recipe = self.ready.recipe.to_dict()
        order = list(recipe.pop("epochs"))
        for name in ("routing", "overlap", "devices", "strategy", "nodes"):
            recipe.pop(name)
        epochs = asdict(self.ready.recipe.epochs)
        before = {name: epochs[name] for name in order[: order.index(stage) + 1]}
        return key_of(stage, recipe, before, self.ready.digest, mope.__version__)

    def common(self, stage: str) -> dict[str, Any]:
        """What every module of the stage is told."""
        feed = self.feed("train", stage)
        return {
            "optim": self.ready.recipe.optim, "steps": feed.steps, "seed": feed.seed,
            "model_dropout": self.ready.recipe.model_dropout, "pull": self._pull(),
            "sampling_dropout": self.ready.recipe.sampling_dropout,
        }  # fmt: skip

    def _pull(self) -> torch.Tensor:
        """Weight of the served model's shrinkage for a row of each model, [M + 1]; none for the unknown one."""
        models = self.ready.parts["train"].inputs.model
        counts = np.bincount(models, minlength=len(self.ready.config.models) + 1)
        weights = self.ready.recipe.model_shrink / np.maximum(counts, 1)
        weights[0] = 0.0
        return torch.tensor(weights, dtype=torch.float32)

    def feed(self, part: str, stage: str, weights: NDArray[np.float32] | None = None) -> Feed:
        """The stage's batches of a part; `weights` [n] restricts and weighs its rows."""
        recipe = self.ready.recipe
        epochs = float(getattr(recipe.epochs, stage))
        seed = recipe.seed * 1009 + list(EpochsConfig.__dataclass_fields__).index(stage)
        hidden = None if stage == "proxy" else self.hidden.get(part)
        if part == "validation":
            rows = len(self.ready.parts[part])
            kept = np.random.default_rng(0).permutation(rows) < recipe.optim.validation_rows
            base = np.ones(rows, np.float32) if weights is None else weights
            weights = np.where(kept, base, 0).astype(np.float32)
        return Feed(self.ready.parts[part], recipe.optim, seed, epochs, weights, hidden)

    def fit(
        self,
        module: StageModule,
        stage: str,
        folder: Path,
        name: str = "",
        weights: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> dict[str, Any]:
        """Train `module`; `weights` are those of the rows of train and validation. Returns the stage's record."""
        train_weights, other = weights or (None, None)
        feed = self.feed("train", stage, train_weights)
        module.steps = feed.steps
        recipe = self.ready.recipe
        loader = FeedModule(feed, self.feed("validation", stage, other), recipe.optim.chunk)
        return asdict(fit(module, loader, folder, recipe, name or stage.replace("_", " "), self.bars))

    def cache_hidden(self, part: str, trunk: Stack, path: Path) -> None:
        """The trunk's outputs for every text of a part, computed into `path` unless they are there."""
        inputs = self.ready.parts[part].inputs
        path.parent.mkdir(parents=True, exist_ok=True)
        if first() and not path.is_file():
            task = self.bars.add_task(f"hidden states, {part}", total=1, note="")
            half = precision_of(self.ready.recipe).startswith("bf16")
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            fill_cache(path, trunk, inputs, device, half)
            self.bars.advance(task)
        wait_for(path)
        self.hidden[part] = HiddenCache(path, inputs.starts, self.ready.config.encoder.hidden_size)

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Points of log1p(length) and their widths: half by tokens, half by logs, as in `length_loss`."""
        part = self.ready.parts["train"]
        logs = np.log1p(part.lengths[part.weights > 0])
        edges = np.unique(np.quantile(logs, np.linspace(0.002, 0.998, GRID + 1)))
        middle = (edges[1:] + edges[:-1]) / 2
        step = np.diff(edges) + self.ready.recipe.optim.token_loss * np.diff(np.expm1(edges)) / 300.0
        return torch.tensor(middle, dtype=torch.float32), torch.tensor(step, dtype=torch.float32)
