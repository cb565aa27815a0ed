"""One stage of training: Lightning's Trainer with our checkpoints, progress and errors."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.progress import Progress, TaskID

from mope.training.feed import FeedModule
from mope.training.modules import StageModule
from mope.training.recipe import Recipe
from mope.training.trouble import translated

LAST, BEST = "last.ckpt", "best.ckpt"


@dataclass(frozen=True)
class StageResult:
    """What a stage came to."""

    steps: int
    seconds: float
    best: float


class Ticker(Callback):
    """Moves a rich progress bar by one a step; the bar's own clock gives the ETA."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Show the step and the last validation."""
        error = trainer.callback_metrics.get("val_mae")
        note = "" if error is None else f"val {float(error):.1f}"
        done = trainer.global_step * trainer.accumulate_grad_batches * trainer.world_size
        self.progress.update(self.task, completed=done, note=note)


class StayStopped(Callback):
    """A stage that was stopped early, then killed before it was closed, does not go on when resumed."""

    def __init__(self, stop: EarlyStopping) -> None:
        self.stop = stop

    def on_train_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """The record of the stop is in the checkpoint, the trainer's decision is not."""
        if self.stop.stopping_reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True


def precision_of(recipe: Recipe) -> Any:
    """The recipe's precision; "auto" is bf16-mixed only where the device computes in bf16 itself."""
    if recipe.precision != "auto":
        return recipe.precision
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16-mixed" if probe is not None and probe() else "32-true"


def fit(
    module: StageModule, feed: FeedModule, folder: Path, recipe: Recipe, name: str, progress: Progress
) -> StageResult:
    """Train `module` in `folder`, going on from its last checkpoint if there is one; ends with the best weights.

    Raises `TrainingError` when memory or disk run out or the loss is not finite; checkpoints are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    task = progress.add_task(name, total=feed.train.steps, note="")
    every = max(1, feed.chunks // max(1, recipe.optim.validations))
    best = ModelCheckpoint(folder, filename="best", monitor="val_mae", enable_version_counter=False)
    # Saved at the end of every chunk, after `best`, so that its record of the best file is in it.
    last = ModelCheckpoint(
        folder, filename="last", monitor=None, save_on_train_epoch_end=True, enable_version_counter=False
    )
    stop = EarlyStopping("val_mae", patience=recipe.optim.patience, check_on_train_epoch_end=False)
    with _quiet(), translated(f"stage {name}"):
        trainer = pl.Trainer(
            accelerator="auto", devices=recipe.devices, strategy=recipe.strategy, num_nodes=recipe.nodes,
            precision=precision_of(recipe), max_epochs=feed.chunks, check_val_every_n_epoch=every,
            reload_dataloaders_every_n_epochs=1, num_sanity_val_steps=0, gradient_clip_val=recipe.optim.clip,
            accumulate_grad_batches=recipe.optim.accumulate,
            callbacks=[Ticker(progress, task), StayStopped(stop), best, stop, last],
            logger=[CSVLogger(folder, name="log"), TensorBoardLogger(folder, name="tensorboard")],
            enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=20, deterministic="warn",
        )  # fmt: skip
        resume = folder / LAST
        trainer.fit(module, feed, ckpt_path=str(resume) if resume.is_file() else None, weights_only=True)
        _restore(module, folder)
    progress.update(task, completed=feed.train.steps)
    score = best.best_model_score
    return StageResult(
        trainer.global_step, time.perf_counter() - began, float("nan") if score is None else float(score)
    )


def _restore(module: StageModule, folder: Path) -> None:
    """The weights with the best validation; the last ones where no validation took place."""
    path = folder / BEST if (folder / BEST).is_file() else folder / LAST
    module.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's advice about workers and devices is not for our users."""
    names = (
        "lightning.pytorch.utilities.rank_zero",
        "lightning.pytorch.accelerators.cuda",
        "lightning.pytorch",
        "lightning.fabric",
    )
    levels = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    for logger, _ in levels:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels:
            logger.setLevel(level)
