"""One stage: what stops it, what it keeps, and that a stop is remembered."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from rich.progress import Progress
from torch import Tensor, nn

from mope.errors import TrainingError
from mope.predictor.inputs import Inputs
from mope.training import fit as fit_file
from mope.training.feed import Feed, FeedModule, Part
from mope.training.fit import BEST, LAST, fit, precision_of
from mope.training.modules import StageModule
from mope.training.recipe import Recipe, load_recipe

ROWS = 24


class Line(StageModule):
    """Learns one number; `error` is raised at step `at`, `scores` are what validation says."""

    def __init__(self, recipe: Recipe, at: int = -1, error: BaseException | None = None) -> None:
        super().__init__(recipe.optim, 6, 0, 0.1)
        self.value = nn.Parameter(torch.zeros(()))
        self.at, self.error, self.calls, self.scores = at, error, 0, [float(n) for n in range(9, 0, -1)]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.calls += 1
        if self.error is not None and self.global_step == self.at:
            raise self.error
        loss = (self.value - batch["lengths"].mean()).abs()
        return loss * float("nan") if self.error is None and self.global_step == self.at else loss

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("val_mae", torch.tensor(self.scores[self.current_epoch]), batch_size=1)


@pytest.fixture
def recipe() -> Recipe:
    settings = ("optim.batch=4", "optim.chunk=2", "optim.validations=9", "optim.patience=2", "devices=1")
    return load_recipe("tiny", settings=settings)


@pytest.fixture
def feed(recipe: Recipe) -> FeedModule:
    inputs = Inputs(
        ids=np.ones(ROWS, np.int32), segments=np.zeros(ROWS, np.int8), starts=np.arange(ROWS + 1),
        text=np.arange(ROWS), features=np.zeros((ROWS, 1), np.float32), model=np.zeros(ROWS, np.int64),
    )  # fmt: skip
    ones = np.ones((ROWS, 1), np.float32)
    part = Part(inputs, 5 * ones, ones, np.full((ROWS, 3), 1 / 3, np.float32))
    return FeedModule(Feed(part, recipe.optim, 0), Feed(part, recipe.optim, 0), recipe.optim.chunk)


@pytest.fixture
def run(recipe: Recipe, feed: FeedModule, tmp_path: Path) -> Callable[[Line], fit_file.StageResult]:
    return lambda module: fit(module, feed, tmp_path, recipe, "line", Progress(disable=True))


def test_a_stage_ends_with_its_best_weights(run: Callable[..., Any], recipe: Recipe, tmp_path: Path):
    module = Line(recipe)
    module.scores = [3.0, 1.0, 2.0]
    done = run(module)
    assert (done.steps, done.best) == (6, 1.0)
    assert module.value.item() == pytest.approx(0.4)  # four steps of 0.1, not six
    assert torch.load(tmp_path / LAST, weights_only=True)["state_dict"]["value"] == pytest.approx(0.6)


def test_a_loss_that_is_not_finite_ends_the_stage_and_the_checkpoint_is_kept(
    run: Callable[..., Any], recipe: Recipe, tmp_path: Path
):
    with pytest.raises(TrainingError, match=r"loss became nan at step 3.*checkpoint is kept.*train anew"):
        run(Line(recipe, at=3))
    assert torch.load(tmp_path / LAST, weights_only=True)["global_step"] == 2
    assert run(Line(recipe)).steps == 6


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out of memory.*optim.batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
    ],
)
def test_memory_and_disk_that_run_out_are_told_and_the_checkpoint_is_kept(
    error: Exception, words: str, run: Callable[..., Any], recipe: Recipe, tmp_path: Path
):
    with pytest.raises(TrainingError, match=words) as caught:
        run(Line(recipe, at=3, error=error))
    assert caught.value.__cause__ is error
    assert (tmp_path / LAST).is_file()


def test_other_errors_are_not_dressed_up(run: Callable[..., Any], recipe: Recipe):
    with pytest.raises(RuntimeError, match="shapes"):
        run(Line(recipe, at=0, error=RuntimeError("shapes do not fit")))


def test_a_checkpoint_that_does_not_fit_on_the_disk(
    run: Callable[..., Any], recipe: Recipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    save = pl.Trainer.save_checkpoint

    def full(self: pl.Trainer, path: str, *rest: Any) -> None:
        if self.global_step > 2:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        save(self, path, *rest)

    monkeypatch.setattr(pl.Trainer, "save_checkpoint", full)
    with pytest.raises(TrainingError, match=r"disk is full.*--resume"):
        run(Line(recipe))
    monkeypatch.undo()
    module = Line(recipe)
    assert (run(module).steps, module.calls) == (6, 4), "two steps were done before"


def test_a_damaged_checkpoint_is_told(run: Callable[..., Any], recipe: Recipe, tmp_path: Path):
    with pytest.raises(TrainingError, match="nan"):
        run(Line(recipe, at=3))
    last = tmp_path / LAST
    last.write_bytes(last.read_bytes()[:200])
    with pytest.raises(TrainingError, match=r"cannot be read.*remove"):
        run(Line(recipe))


def test_a_stage_stopped_early_stays_stopped(
    run: Callable[..., Any], recipe: Recipe, feed: FeedModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Killed after the stop and before the stage was closed: one more chunk would find a better score."""
    settings = ("optim.batch=2", "optim.chunk=2", "optim.validations=9", "optim.patience=2")
    longer = load_recipe("tiny", settings=settings)
    twice = FeedModule(
        Feed(feed.train.part, longer.optim, 0), Feed(feed.train.part, longer.optim, 0), longer.optim.chunk
    )
    assert twice.chunks == 6

    def go(module: Line) -> fit_file.StageResult:
        return fit(module, twice, tmp_path, longer, "line", Progress(disable=True))

    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    scores = [1.0, 2.0, 3.0, 0.5, 0.4, 0.3]
    first, again = Line(longer), Line(longer)
    first.scores = again.scores = scores
    monkeypatch.setattr(fit_file, "_restore", die)
    with pytest.raises(Killed):
        go(first)
    monkeypatch.undo()
    done = go(again)
    assert (first.calls, again.calls) == (6, 0)
    assert (done.steps, done.best, again.value.item()) == (6, 1.0, pytest.approx(0.2))


def test_batches_are_summed_before_a_step(recipe: Recipe, feed: FeedModule, tmp_path: Path):
    both = load_recipe(
        "tiny",
        settings=("optim.batch=4", "optim.chunk=6", "optim.validations=1", "optim.accumulate=2", "devices=1"),
    )
    whole = FeedModule(feed.train, feed.validation, 6)
    module = Line(both)
    done = fit(module, whole, tmp_path, both, "line", Progress(disable=True))
    assert (done.steps, module.calls, module.value.item()) == (3, 6, pytest.approx(0.3))


def test_the_last_weights_count_where_nothing_was_validated(recipe: Recipe, feed: FeedModule, tmp_path: Path):
    feed.validation.__dict__["rows"] = np.array([], np.int64)
    module = Line(recipe)
    done = fit(module, feed, tmp_path, recipe, "line", Progress(disable=True))
    assert not (tmp_path / BEST).exists()
    assert np.isnan(done.best)
    assert module.value.item() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("asked", "cuda", "bf16", "cpu_bf16", "given"),
    [
        ("32-true", True, True, True, "32-true"),
        ("auto", True, True, False, "bf16-mixed"),
        ("auto", True, False, True, "16-mixed"),
        ("auto", False, False, True, "bf16-mixed"),
        ("auto", False, False, False, "32-true"),
    ],
)
def test_auto_precision_is_bf16_where_the_device_computes_in_it(
    asked: str, cuda: bool, bf16: bool, cpu_bf16: bool, given: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_bf16, raising=False)
    assert precision_of(load_recipe("tiny", settings=[f"precision={asked}"])) == given
