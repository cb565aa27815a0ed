"""`train`: (prompt, length) pairs and a recipe into a bundle. Read top to bottom: each stage is one method."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

import mope
from mope.data.records import LengthData
from mope.errors import BundleError, ConfigError, DataError
from mope.files import write_text
from mope.predictor import layout
from mope.predictor.expert import Expert
from mope.predictor.floors import Floors
from mope.predictor.router import LexicalRouter
from mope.training.facts import cost_facts, device_facts, training_facts
from mope.training.fitter import Fitter
from mope.training.floors import fit_floors
from mope.training.lexical import fit_router
from mope.training.modules import LengthModule, MixtureModule, RouterModule
from mope.training.origin import Origin
from mope.training.prepare import prepare
from mope.training.ranks import first, wait_for_all
from mope.training.recipe import Recipe
from mope.training.result import Trained, calibrated, choose
from mope.training.stages import Stages, key_of, use_threads
from mope.training.starts import copy_as, cut, freeze, new_proxy, start
from mope.training.trouble import translated
from mope.types import BUCKETS


def train(
    recipe: Recipe,
    data: LengthData,
    output: str | Path,
    *,
    origin: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a bundle into folder `output` and return it; all weights start from the bundle `origin`, where given.

    `output` also gets a folder `run` with the resolved recipe, logs and finished stages; with `resume` what is
    finished there is not done again, and the result is the one the unbroken run would have had. Raises
    `DataError` for data that cannot be split into parts and buckets, `TrainingError` where a stage cannot go on.
    """
    folder = Path(output)
    if folder.exists() and any(folder.iterdir()) and not resume and first():
        raise ConfigError(
            f"output folder {str(folder)!r} that is not empty", "a new folder", "choose another, or --resume"
        )
    began = time.perf_counter()
    use_threads(recipe.threads)
    pl.seed_everything(recipe.seed, verbose=False)
    shown = progress if progress is not None and first() else Progress(disable=True)
    with shown as bars, translated("training"):
        run = Run(recipe, data, folder, bars, None if origin is None else Origin.of(origin))
        run.learn()
        run.write(time.perf_counter() - began)
        wait_for_all()  # the bundle is whole for whoever reads it next, in any process
    return folder


@dataclass
class Run:
    """The state of one training run, from data to files."""

    recipe: Recipe
    data: LengthData
    folder: Path
    bars: Progress
    origin: Origin | None = None
    networks: dict[str, nn.Module] = field(default_factory=dict)
    joint: dict[str, nn.Module] = field(default_factory=dict)

    def learn(self) -> None:
        """Every stage in order; what is finished in the run's folder is loaded, not done again."""
        self.prepare()
        self.train_floors()
        self.train_proxy()
        self.share_trunk()
        self.train_router()
        self.train_experts()
        self.train_jointly()

    def prepare(self) -> None:
        """Split, bounds, tokenizer, inputs, config; the resolved recipe is written first of all."""
        ready = prepare(self.recipe, self.data, self.origin)
        self.recipe, self.config, self.tokenizer = ready.recipe, ready.config, ready.tokenizer
        self.split, self.bounds, self.parts = ready.split, ready.bounds, ready.parts
        self.fitter = Fitter(ready, self.bars)
        self.stages = Stages(self.folder / "run" / "stages")
        if first():
            write_text(self.folder / "run" / "recipe.json", _json(self.recipe.to_dict()))

    def train_floors(self) -> None:
        """Boosted trees and the lexical router: minutes on a quarter of a million rows, so they are kept too."""
        recipe, digest = self.recipe, self.config.data_hash
        key = key_of("floors", recipe.seed, recipe.percentiles, digest, mope.__version__)
        folder = self.stages.folder("floors", key)
        kept = _kept_floors(folder)
        if kept is not None:
            self.floors, self.lexical = kept
            return
        task = self.bars.add_task("floors and lexical router", total=2, note="")
        train, validation = self.split["train"], self.split["validation"]
        self.floors = fit_floors(train, validation, self.bounds, self.recipe.seed)
        self.bars.advance(task)
        self.lexical = fit_router(train, validation, self.bounds, self.recipe.seed)
        self.bars.advance(task)
        if first():
            layout.write_arrays(folder / layout.FLOORS, self.floors.to_arrays())
            layout.write_arrays(folder / layout.ROUTER, self.lexical.to_arrays())

    def train_proxy(self) -> None:
        """One encoder over all lengths: the baseline, and where the experts start from."""
        proxy = new_proxy(self.config, self.fitter.ready.weights, self.recipe.optim.dropout)
        self.networks[layout.PROXY] = proxy

        def work(folder: Path) -> dict[str, Any]:
            if self.origin is None or not self.origin.fill(layout.PROXY, proxy, self.config.models):
                start(proxy, self.parts["train"], self.config.quantiles)
            freeze(proxy, self.recipe.frozen_layers)
            return self.fitter.fit(self._length_module(proxy, "proxy"), "proxy", folder)

        self.stages.run("proxy", self.fitter.key("proxy"), {layout.PROXY: proxy}, work)

    def share_trunk(self) -> None:
        """Cut the proxy: its lower layers become the trunk, whose outputs are computed once for every text."""
        if not self.recipe.shared_layers:
            return
        proxy = self.networks[layout.PROXY]
        assert isinstance(proxy, Expert)
        trunk, tower = cut(proxy, self.config, self.recipe.optim.dropout)
        self.networks |= {layout.TRUNK: trunk, layout.PROXY: tower}
        for part in ("train", "validation"):
            folder = self.stages.folder("hidden", key_of(self.fitter.key("proxy"), part))
            self.fitter.cache_hidden(part, trunk, folder / "states.f16")
        if self.recipe.epochs.proxy_tower:
            self.networks[layout.PROXY] = self._more_proxy(tower)

    def _more_proxy(self, tower: Expert) -> Expert:
        """The proxy's upper layers trained as long as the experts are, so that the comparison is fair."""
        longer = self._copy(layout.PROXY, layout.PROXY)

        def work(folder: Path) -> dict[str, Any]:
            longer.load_state_dict(tower.state_dict())
            return self.fitter.fit(self._length_module(longer, "proxy_tower"), "proxy_tower", folder)

        self.stages.run("proxy_tower", self.fitter.key("proxy_tower"), {layout.PROXY: longer}, work)
        better = self.stages.records["proxy_tower"]["best"] < self.stages.records["proxy"]["best"]
        return longer if better else tower

    def train_router(self) -> None:
        """The encoder router, from the proxy's upper layers."""
        if self.recipe.router != "encoder":
            return
        router = self._begun(layout.ENCODER_ROUTER)
        self.networks[layout.ENCODER_ROUTER] = router

        def work(folder: Path) -> dict[str, Any]:
            return self.fitter.fit(RouterModule(router, **self.fitter.common("router")), "router", folder)

        self.stages.run("router", self.fitter.key("router"), {layout.ENCODER_ROUTER: router}, work)

    def train_experts(self) -> None:
        """Three experts, each on the rows of its bucket (and, with `overlap`, on what the router would send it)."""
        train, validation = self._expert_weights("train"), self._expert_weights("validation")
        for place, bucket in enumerate(BUCKETS):
            if not (train[:, place] > 0).any():
                raise DataError(
                    f"no training rows in the bucket {bucket}",
                    "rows in every bucket",
                    "choose other percentiles",
                )
            self._train_expert(bucket, (train[:, place], validation[:, place]))

    def _train_expert(self, bucket: str, weights: tuple[NDArray[np.float32], NDArray[np.float32]]) -> None:
        expert = self._begun(bucket)
        self.networks[bucket] = expert

        def work(folder: Path) -> dict[str, Any]:
            module = self._length_module(expert, "experts")
            return self.fitter.fit(module, "experts", folder, f"expert {bucket}", weights)

        key = key_of(self.fitter.key("experts"), self.recipe.overlap, bucket)
        self.stages.run(f"expert-{bucket}", key, {bucket: expert}, work)

    def _expert_weights(self, part: str) -> NDArray[np.float32]:
        """Weight of each row for each expert, [n, 3]."""
        shares, overlap = self.parts[part].shares, np.float32(self.recipe.overlap)
        if not overlap:
            return shares
        routed = self.lexical.probabilities(self.split[part].requests, self.parts[part].inputs.features)
        weights: NDArray[np.float32] = (1 - overlap) * shares + overlap * routed
        return np.where(weights < 0.05, 0, weights).astype(np.float32)

    def train_jointly(self) -> None:
        """Router and experts together as one mixture; kept only if it is better on validation."""
        if not self.recipe.epochs.joint:
            return
        names = (layout.ENCODER_ROUTER, *BUCKETS)
        copies = {name: self._copy(name, name) for name in names}

        def work(folder: Path) -> dict[str, Any]:
            for name in names:
                copies[name].load_state_dict(self.networks[name].state_dict())
            router, experts = copies[layout.ENCODER_ROUTER], [copies[name] for name in BUCKETS]
            grid, step = self.fitter.grid()
            common = self.fitter.common("joint")
            module = MixtureModule(router, experts, self.config.quantiles, grid, step, **common)
            return self.fitter.fit(module, "joint", folder)

        key = key_of(self.fitter.key("joint"), self.recipe.overlap)
        self.stages.run("joint", key, dict(copies), work)
        self.joint = dict(copies)

    def write(self, seconds: float) -> None:
        """Choose routing on validation, calibrate on the calibration part, write the bundle whole."""
        if not first():
            return
        trained = Trained(self.config, self.networks, self.joint, self.lexical, self.floors, self.tokenizer)
        trained, scores = choose(trained, self.split["validation"], self.recipe.routing)
        calibration = calibrated(trained, self.split["calibration"])
        facts = training_facts(self.recipe, self.data, self.split, self.bounds, self.stages.records, seconds)
        facts["validation"] = scores
        tokens = float(np.median(self.parts["train"].inputs.sizes))
        facts["cost"] = cost_facts(trained.config, trained.networks, tokens)
        trained.write(self.folder, calibration, facts)
        write_text(self.folder / "run" / "run.json", _json(facts | device_facts(self.recipe)))

    def _begun(self, name: str) -> Expert:
        """A network where its stage begins: at the origin's, else at the proxy."""
        network = self._copy(layout.PROXY, name)
        if self.origin is not None:
            self.origin.fill(name, network, self.config.models)
        return network

    def _copy(self, source: str, name: str) -> Expert:
        return copy_as(name, self.networks[source], self.config, self.recipe)

    def _length_module(self, network: Expert, stage: str) -> LengthModule:
        return LengthModule(network, self.config.quantiles, **self.fitter.common(stage))


def _kept_floors(folder: Path) -> tuple[Floors, LexicalRouter] | None:
    """What an earlier run fitted; None where that is not there or damaged."""
    try:
        floors = Floors.from_arrays(layout.read_arrays(folder, layout.FLOORS))
        return floors, LexicalRouter.from_arrays(layout.read_arrays(folder, layout.ROUTER))
    except (BundleError, KeyError, ValueError):
        return None


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2, default=str) + "\n"
