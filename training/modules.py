"""LightningModules: loss, logging, optimiser. The models themselves are plain modules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from mope.errors import TrainingError
from mope.predictor.expert import Expert
from mope.predictor.features import ALL, NAMES
from mope.training.losses import length_loss, mixture_loss, router_loss
from mope.training.recipe import OptimConfig

FLOOR = 0.02  # share of the peak rate that the cosine ends at
Batch = dict[str, Tensor]


class StageModule(pl.LightningModule):
    """What all stages share: AdamW with layer-wise rates, warm-up and cosine, the NaN guard, seeding by chunk."""

    pull: Tensor

    def __init__(
        self,
        optim: OptimConfig,
        steps: int,
        seed: int,
        model_dropout: float,
        pull: Tensor | None = None,
        sampling_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.optim, self.steps, self.seed = optim, steps, seed
        self.model_dropout, self.sampling_dropout = model_dropout, sampling_dropout
        self.register_buffer("pull", torch.zeros(1) if pull is None else pull, persistent=False)

    def loss(self, batch: Batch) -> Tensor:
        """The training loss of a batch."""
        raise NotImplementedError

    def medians(self, batch: Batch) -> Tensor:
        """Forecast tokens [B] (validation)."""
        raise NotImplementedError

    def on_train_batch_start(self, batch: Batch, index: int) -> None:
        """Draws depend on (seed, chunk) alone, so a resumed run draws what the unbroken one would have.

        Not at the epoch's start: after it Lightning makes a new iterator, which takes a draw, in an unbroken run
        but not in a resumed one. The draw is taken here instead, for both.
        """
        if index == 0:
            torch.manual_seed(self.seed * 100_003 + self.current_epoch)
            if self.current_epoch:
                torch.empty((), dtype=torch.int64).random_()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """One step; a loss that is not finite ends the stage with what was saved before it."""
        self.hide(batch)
        loss = self.loss(batch) + self.shrinkage(batch["model"])
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss.item()} at step {self.global_step}; the last checkpoint is kept. "
                "Check the data for absurd lengths, or lower optim.lr or optim.head_lr and train anew"
            )
        self.log("train_loss", loss.detach(), prog_bar=True)
        return loss

    def hide(self, batch: Batch) -> None:
        """Hide the served model of some rows, and of some the sampling settings: what is not told must read as the
        population, not as those sources that never tell it.
        """
        hidden = torch.rand(batch["model"].shape, device=batch["model"].device) < self.model_dropout
        batch["model"] = batch["model"].masked_fill(hidden, 0)
        features = batch["features"]
        if self.sampling_dropout and features.shape[1] == len(ALL):
            untold = torch.rand(len(features), 1, device=features.device) < self.sampling_dropout
            settings = torch.arange(len(ALL), device=features.device) >= len(NAMES)
            batch["features"] = features.masked_fill(untold & settings, torch.nan)

    def validation_step(self, batch: Batch, index: int) -> None:
        """Logs the mean absolute error in tokens."""
        tokens = self.medians(batch)
        if "caps" in batch:  # above its cap an answer's length is unknown, and a forecast there not wrong
            tokens = torch.minimum(tokens, batch["caps"])
        error = (tokens[:, None] - batch["lengths"]).abs() * batch["weights"]
        self.log(
            "val_mae",
            error.sum() / batch["weights"].sum(),
            batch_size=len(error),
            sync_dist=True,
            prog_bar=True,
        )

    def shrinkage(self, model: Tensor) -> Tensor:
        """What the effects of the rows' served models cost: a Gaussian around the population's, so that a model of
        few rows stays near it. `pull` [M + 1] is the weight of one row, the same for all rows of a model together.
        """
        if self.pull.numel() == 1:
            return self.pull.sum()
        pull = self.pull[model]
        tables = [network.head.model for network in self.networks()]
        far = [(table(model) - table.weight[0].detach()).square().sum(1) for table in tables]
        return torch.stack([(pull * square).mean() for square in far]).sum()

    def networks(self) -> Iterator[Expert]:
        """The experts (or router) this stage trains."""
        for child in self.modules():
            if isinstance(child, Expert):
                yield child

    def configure_optimizers(self) -> Any:
        """AdamW; a layer's rate falls with its depth below the top."""
        groups: dict[float, list[nn.Parameter]] = {}
        for network in self.networks():
            depth = max((int(name) for name in network.encoder.layer), default=0)
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    groups.setdefault(self._rate(name, depth), []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": params, "lr": rate} for rate, params in sorted(groups.items())],
            weight_decay=self.optim.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, name: str, depth: int) -> float:
        if not name.startswith("encoder.layer."):
            return self.optim.head_lr
        return self.optim.lr * self.optim.layer_decay ** (depth - int(name.split(".")[2]))

    def _share(self, step: int) -> float:
        """Share of the peak rate at `step`: linear rise, cosine fall."""
        total = max(1, self.steps // (self.optim.accumulate * self.trainer.world_size))
        rise = min(1.0, (step + 1) / max(1.0, self.optim.warmup * total))
        return rise * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total))))


def _inputs(batch: Batch) -> tuple[Tensor, ...]:
    return tuple(batch[name] for name in ("x", "segments", "mask", "text", "features", "model"))


class LengthModule(StageModule):
    """Trains an expert or the proxy on quantiles of log1p(length)."""

    levels: Tensor

    def __init__(self, network: Expert, levels: tuple[float, ...], **common: Any) -> None:
        super().__init__(**common)
        self.network, self.middle = network, levels.index(0.5)
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def loss(self, batch: Batch) -> Tensor:
        """Pinball loss, in logs and in tokens."""
        logs = self.network(*_inputs(batch))
        answers = batch["lengths"], batch["weights"]
        return length_loss(logs, *answers, self.levels, self.optim.token_loss, batch.get("caps"))

    def medians(self, batch: Batch) -> Tensor:
        """Median forecast in tokens."""
        return torch.expm1(self.network(*_inputs(batch))[:, self.middle])


class RouterModule(StageModule):
    """Trains the encoder router. Its validation number is the error rate in per cent, under the same name."""

    def __init__(self, network: Expert, **common: Any) -> None:
        super().__init__(**common)
        self.network = network

    def loss(self, batch: Batch) -> Tensor:
        """Cross entropy against bucket shares."""
        return router_loss(self.network(*_inputs(batch)), batch["shares"])

    def validation_step(self, batch: Batch, index: int) -> None:
        """Logs cross entropy times 100 as `val_mae`: it is what the checkpoint is chosen by."""
        loss = router_loss(self.network(*_inputs(batch)), batch["shares"])
        self.log("val_mae", 100 * loss, batch_size=len(batch["shares"]), sync_dist=True, prog_bar=True)


class MixtureModule(StageModule):
    """Trains router and experts together as one mixture density."""

    levels: Tensor
    grid: Tensor
    step: Tensor

    def __init__(
        self,
        router: Expert,
        experts: list[Expert],
        levels: tuple[float, ...],
        grid: Tensor,
        step: Tensor,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.router, self.experts = router, nn.ModuleList(experts)
        for name, value in (("levels", torch.tensor(levels)), ("grid", grid), ("step", step)):
            self.register_buffer(name, value, persistent=False)

    def _both(self, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs = _inputs(batch)
        return self.router(*inputs), torch.stack([expert(*inputs) for expert in self.experts], dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Ranked probability score of the mixture."""
        answers = batch["lengths"], batch["weights"]
        scale = self.levels, self.grid, self.step
        return mixture_loss(*self._both(batch), *answers, *scale, batch.get("caps"))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Logs the score times 1000 as `val_mae`."""
        self.log(
            "val_mae", 1000 * self.loss(batch), batch_size=len(batch["shares"]), sync_dist=True, prog_bar=True
        )
