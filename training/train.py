"""`train`: (prompt, length) pairs and a recipe into a bundle. Read top to bottom: each stage is one method."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn

import mope
from mope.data.records import LengthData
from mope.data.split import PARTS, Bounds, split
from mope.errors import ConfigError, DataError
from mope.predictor import layout
from mope.predictor.calibration import Calibration, calibrate, predicted_buckets
from mope.predictor.config import BundleConfig
from mope.predictor.encoder import Stack
from mope.predictor.expert import Expert
from mope.predictor.features import NAMES, matrix
from mope.predictor.inputs import Inputs, build_inputs
from mope.predictor.torch_backend import build
from mope.training.cache import HiddenCache, fill_cache
from mope.training.facts import cost_facts, device_facts, training_facts
from mope.training.feed import Feed, FeedModule, Part, make_part
from mope.training.fit import fit, precision_of
from mope.training.floors import fit_floors
from mope.training.lexical import fit_router
from mope.training.modules import LengthModule, MixtureModule, RouterModule, StageModule
from mope.training.pretrained import encoder_of, find_weights, load_weights, make_tokenizer
from mope.training.ranks import first, wait_for_all
from mope.training.recipe import EpochsConfig, Recipe
from mope.training.result import Trained, choose
from mope.training.stages import Stages, key_of, use_threads
from mope.types import BUCKETS

GRID = 64  # points at which the mixture's distribution is compared with the truth
MIN_ROWS = 8  # fewer in any part cannot be split, trained and calibrated on


def train(
    recipe: Recipe,
    data: LengthData,
    output: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a bundle into folder `output` and return it.

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
    with progress or Progress(disable=True) as bars:
        run = Run(recipe, data, folder, bars)
        run.prepare()
        run.train_floors()
        run.train_proxy()
        run.share_trunk()
        run.train_router()
        run.train_experts()
        run.train_jointly()
        run.write(time.perf_counter() - began)
    return folder


@dataclass
class Run:
    """The state of one training run, from data to files."""

    recipe: Recipe
    data: LengthData
    folder: Path
    bars: Progress
    networks: dict[str, nn.Module] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    hidden: dict[str, HiddenCache] = field(default_factory=dict)
    joint: dict[str, nn.Module] = field(default_factory=dict)

    def prepare(self) -> None:
        """Split, bounds, tokenizer, inputs, config; the resolved recipe is written first of all."""
        self.indices = split(self.data)
        small = {part: len(rows) for part, rows in self.indices.items() if len(rows) < MIN_ROWS}
        if small:
            raise DataError(
                f"{len(self.data)} examples, of which the parts {small}",
                f"at least {MIN_ROWS} in each part",
                "give more data",
            )
        self.digest = self.data.digest()
        self.split = {part: self.data.take(rows) for part, rows in self.indices.items()}
        self.bounds = Bounds.fit(self.split["train"].lengths, self.recipe.percentiles)
        self.weights = find_weights(self.recipe.weights)
        self.recipe = replace(self.recipe, encoder=encoder_of(self.weights, self.recipe.encoder))
        self.stages = Stages(self.folder / "run" / "stages")
        if first():
            layout.write_text(self.folder / "run" / "recipe.json", _json(self.recipe.to_dict()))
        requests = {part: data.requests for part, data in self.split.items()}
        texts = (r.prompt[:2000] for r in requests["train"])
        self.tokenizer = make_tokenizer(self.weights, self.recipe, texts)
        self.config = self._config()
        for part, rows in requests.items():
            if part == "test":
                continue
            inputs = build_inputs(rows, self.tokenizer, self.config.text, self.config.models, matrix(rows))
            self.parts[part] = make_part(inputs, self.split[part], self.bounds)
        self.parts["train"] = replace(
            self.parts["train"], lengths=np.minimum(self.parts["train"].lengths, np.float32(self.bounds.cap))
        )

    def _config(self) -> BundleConfig:
        recipe = self.recipe
        names, counts = np.unique(self.split["train"].models, return_counts=True)
        models = tuple(str(n) for n, c in zip(names, counts, strict=True) if n and c >= recipe.min_model_rows)
        return BundleConfig(
            bounds=self.bounds, preset=recipe.preset, mope_version=mope.__version__, quantiles=recipe.quantiles,
            router=recipe.router, routing="soft" if recipe.routing == "auto" else recipe.routing,
            shared_layers=recipe.shared_layers, text=recipe.text, encoder=recipe.encoder, features=NAMES,
            models=models if len(models) > 1 else (), tokenizer=recipe.weights.source or "learned",
            data_hash=self.digest, seed=recipe.seed,
        )  # fmt: skip

    def train_floors(self) -> None:
        """Boosted trees and the lexical router: seconds."""
        task = self.bars.add_task("floors and lexical router", total=2, note="")
        self.floors = fit_floors(self.split["train"], self.split["validation"], self.bounds, self.recipe.seed)
        self.bars.advance(task)
        self.lexical = fit_router(
            self.split["train"], self.split["validation"], self.bounds, self.recipe.seed
        )
        self.bars.advance(task)

    def train_proxy(self) -> None:
        """One encoder over all lengths: the baseline, and where the experts start from."""
        proxy = self._new_proxy()
        self.networks[layout.PROXY] = proxy

        def work(folder: Path) -> dict[str, Any]:
            self._start(proxy)
            return self._fit(
                LengthModule(proxy, self.config.quantiles, **self._common("proxy")), "proxy", folder
            )

        self.stages.run("proxy", self._key("proxy"), {layout.PROXY: proxy}, work)

    def share_trunk(self) -> None:
        """Cut the proxy: its lower layers become the trunk, whose outputs are computed once for every text."""
        if not self.recipe.shared_layers:
            return
        proxy = self.networks[layout.PROXY]
        assert isinstance(proxy, Expert)
        trunk = build(layout.TRUNK, self.config)
        assert isinstance(trunk, Stack)
        trunk.load_state_dict(
            {k: v for k, v in proxy.encoder.state_dict().items() if k in trunk.state_dict()}
        )
        trunk.requires_grad_(False)
        tower = build(layout.PROXY, self.config, self.recipe.optim.dropout)
        upper = tower.state_dict()
        tower.load_state_dict({k: v for k, v in proxy.state_dict().items() if k in upper})
        self.networks |= {layout.TRUNK: trunk, layout.PROXY: tower}
        self._fill_hidden(trunk)
        if self.recipe.epochs.proxy_tower:
            self.networks[layout.PROXY] = self._more_proxy(tower)

    def _fill_hidden(self, trunk: Stack) -> None:
        key = self._key("proxy")
        for part in ("train", "validation"):
            inputs = self.parts[part].inputs
            path = self.stages.folder("hidden", key_of(key, part)) / "states.f16"
            path.parent.mkdir(parents=True, exist_ok=True)
            if first() and not path.is_file():
                task = self.bars.add_task(f"hidden states, {part}", total=1, note="")
                half = precision_of(self.recipe).startswith("bf16")
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                fill_cache(path, trunk, inputs, device, half)
                self.bars.advance(task)
            wait_for_all()
            self.hidden[part] = HiddenCache(path, inputs.starts, self.config.encoder.hidden_size)

    def _more_proxy(self, tower: nn.Module) -> nn.Module:
        """The proxy's upper layers trained as long as the experts are, so that the comparison is fair."""
        longer = self._copy(tower, layout.PROXY)

        def work(folder: Path) -> dict[str, Any]:
            longer.load_state_dict(tower.state_dict())
            return self._fit(
                LengthModule(longer, self.config.quantiles, **self._common("proxy_tower")),
                "proxy_tower",
                folder,
            )

        self.stages.run("proxy_tower", self._key("proxy_tower"), {layout.PROXY: longer}, work)
        better = self.stages.records["proxy_tower"]["best"] < self.stages.records["proxy"]["best"]
        return longer if better else tower

    def train_router(self) -> None:
        """The encoder router, from the proxy's upper layers."""
        if self.recipe.router != "encoder":
            return
        router = self._copy(self.networks[layout.PROXY], layout.ENCODER_ROUTER)
        self.networks[layout.ENCODER_ROUTER] = router

        def work(folder: Path) -> dict[str, Any]:
            return self._fit(RouterModule(router, **self._common("router")), "router", folder)

        self.stages.run("router", self._key("router"), {layout.ENCODER_ROUTER: router}, work)

    def train_experts(self) -> None:
        """Three experts, each on the rows of its bucket (and, with `overlap`, on what the router would send it)."""
        shares = self._expert_weights("train"), self._expert_weights("validation")
        for place, bucket in enumerate(BUCKETS):
            expert = self._copy(self.networks[layout.PROXY], bucket)
            self.networks[bucket] = expert
            weights = shares[0][:, place], shares[1][:, place]
            if not (weights[0] > 0).any():
                raise DataError(
                    f"no training rows in the bucket {bucket}",
                    "rows in every bucket",
                    "choose other percentiles",
                )

            def work(
                folder: Path,
                expert: Expert = expert,
                weights: tuple[NDArray[np.float32], ...] = weights,
                bucket: str = bucket,
            ) -> dict[str, Any]:
                module = LengthModule(expert, self.config.quantiles, **self._common("experts"))
                return self._fit(module, "experts", folder, f"expert {bucket}", weights)

            key = key_of(self._key("experts"), self.recipe.overlap, bucket)
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
        copies = {name: self._copy(self.networks[name], name) for name in names}

        def work(folder: Path) -> dict[str, Any]:
            for name in names:
                copies[name].load_state_dict(self.networks[name].state_dict())
            grid, step = self._grid()
            experts = [copies[name] for name in BUCKETS]
            common = self._common("joint")
            module = MixtureModule(
                copies[layout.ENCODER_ROUTER], experts, self.config.quantiles, grid, step, **common
            )
            return self._fit(module, "joint", folder)

        key = key_of(self._key("joint"), self.recipe.overlap)
        self.stages.run("joint", key, dict(copies), work)
        self.joint = dict(copies)

    def _grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Points of log1p(length) and their widths: half by tokens, half by logs, as in `length_loss`."""
        part = self.parts["train"]
        logs = np.log1p(part.lengths[part.weights > 0])
        edges = np.unique(np.quantile(logs, np.linspace(0.002, 0.998, GRID + 1)))
        middle = (edges[1:] + edges[:-1]) / 2
        step = np.diff(edges) + self.recipe.optim.token_loss * np.diff(np.expm1(edges)) / 300.0
        return torch.tensor(middle, dtype=torch.float32), torch.tensor(step, dtype=torch.float32)

    def write(self, seconds: float) -> None:
        """Choose routing on validation, calibrate on the calibration part, write the bundle whole."""
        if not first():
            return
        trained = Trained(self.config, self.networks, self.joint, self.lexical, self.floors, self.tokenizer)
        trained, scores = choose(trained, self.split["validation"], self.recipe.routing)
        calibration = _calibrate(trained, self.split["calibration"])
        facts = training_facts(self.recipe, self.data, self.split, self.bounds, self.stages.records, seconds)
        facts["validation"] = scores
        tokens = float(np.median(self.parts["train"].inputs.sizes))
        facts["cost"] = cost_facts(trained.config, trained.networks, tokens)
        trained.write(self.folder, calibration, facts)
        layout.write_text(self.folder / "run" / "run.json", _json(facts | device_facts(self.recipe)))

    def _new_proxy(self) -> Expert:
        proxy = Expert(self.config, 0, dropout=self.recipe.optim.dropout)
        if self.weights is not None:
            _load_encoder(proxy, load_weights(self.weights))
        return proxy

    def _start(self, network: Expert) -> None:
        """Feature scales and output bias from the training data; frozen layers."""
        part = self.parts["train"]
        level = np.sign(part.inputs.features) * np.log1p(np.abs(part.inputs.features))
        gone = np.isnan(level).all(axis=0)
        level[:, gone] = 0
        network.head.mean.copy_(torch.from_numpy(np.nanmean(level, axis=0)))
        network.head.scale.copy_(torch.from_numpy(np.nanstd(level, axis=0) + 1e-3))
        logs = np.quantile(np.log1p(part.lengths[part.weights > 0]), self.config.quantiles)
        steps = np.log(np.expm1(np.maximum(np.diff(logs), 1e-3)))
        with torch.no_grad():
            network.head.out.bias.copy_(
                torch.from_numpy(np.concatenate([logs[:1], steps]).astype(np.float32))
            )
        _freeze(network, self.recipe.frozen_layers)

    def _copy(self, network: nn.Module, name: str) -> Expert:
        """A network named `name` that starts where `network` stands (its output layer too, if it is of that kind)."""
        torch.manual_seed(self.recipe.seed * 7919 + layout.NETWORKS.index(name))
        copy = build(name, self.config, self.recipe.optim.dropout)
        assert isinstance(copy, Expert)
        own = copy.state_dict()
        same = {k: v for k, v in network.state_dict().items() if k in own and v.shape == own[k].shape}
        copy.load_state_dict(own | same)
        if not self.recipe.shared_layers:
            _freeze(copy, self.recipe.frozen_layers)
        return copy

    def _common(self, stage: str) -> dict[str, Any]:
        feed = self._feed("train", stage)
        return {
            "optim": self.recipe.optim, "steps": feed.steps, "seed": feed.seed,
            "model_dropout": self.recipe.model_dropout,
        }  # fmt: skip

    def _feed(self, part: str, stage: str, weights: NDArray[np.float32] | None = None) -> Feed:
        epochs = float(getattr(self.recipe.epochs, stage))
        seed = self.recipe.seed * 1009 + list(EpochsConfig.__dataclass_fields__).index(stage)
        hidden = None if stage == "proxy" else self.hidden.get(part)
        if part == "validation":
            rows = len(self.parts[part])
            kept = np.random.default_rng(0).permutation(rows) < self.recipe.optim.validation_rows
            base = np.ones(rows, np.float32) if weights is None else weights
            weights = np.where(kept, base, 0).astype(np.float32)
        return Feed(self.parts[part], self.recipe.optim, seed, epochs, weights, hidden)

    def _fit(
        self,
        module: StageModule,
        stage: str,
        folder: Path,
        name: str = "",
        weights: tuple[NDArray[np.float32], ...] | None = None,
    ) -> dict[str, Any]:
        train_weights, other = weights or (None, None)
        feed = self._feed("train", stage, train_weights)
        module.steps = feed.steps
        loader = FeedModule(feed, self._feed("validation", stage, other), self.recipe.optim.chunk)
        return asdict(fit(module, loader, folder, self.recipe, name or stage.replace("_", " "), self.bars))

    def _key(self, stage: str) -> str:
        """Data, code version and every setting that the stage (or one before it) reads."""
        recipe = self.recipe.to_dict()
        order = list(recipe.pop("epochs"))
        for name in ("routing", "overlap", "devices", "strategy", "nodes"):
            recipe.pop(name)
        epochs = asdict(self.recipe.epochs)
        before = {name: epochs[name] for name in order[: order.index(stage) + 1]}
        return key_of(stage, recipe, before, self.digest, mope.__version__)


def _calibrate(trained: Trained, data: LengthData) -> Calibration:
    bundle = trained.bundle()
    sizes = np.array([len(e.lengths) for e in data.examples])
    spread = np.repeat(np.arange(len(sizes)), sizes)
    config = trained.config
    columns = {}
    for name, (logs, probabilities) in trained.logs(bundle, data.requests).items():
        medians = logs[:, config.quantiles.index(0.5)]
        by_median = predicted_buckets(medians, (config.bounds.short, config.bounds.medium))
        buckets = by_median if probabilities is None else probabilities.argmax(1)
        columns[name] = (logs[spread], buckets[spread])
    return calibrate(columns, _all_lengths(data), 1.0 / sizes[spread], config.quantiles)


def _all_lengths(data: LengthData) -> NDArray[np.float64]:
    return np.array([n for example in data.examples for n in example.lengths], np.float64)


def _load_encoder(network: Expert, tensors: dict[str, object]) -> None:
    own = network.encoder.state_dict()
    missing = sorted(set(own) - set(tensors))
    if missing:
        raise ConfigError(
            f"pretrained weights without {missing[0]} (and {len(missing) - 1} more)", "a BERT encoder"
        )
    network.encoder.load_state_dict({name: tensors[name] for name in own})


def _freeze(network: Expert, layers: int) -> None:
    """The embeddings and the lowest `layers` are not trained."""
    if network.encoder.embeddings is not None:
        network.encoder.embeddings.requires_grad_(False)
    for name, layer in network.encoder.layer.items():
        if int(name) < layers:
            layer.requires_grad_(False)


def _json(values: dict[str, Any]) -> str:
    import json

    return json.dumps(values, indent=2, default=str) + "\n"


__all__ = ["PARTS", "Inputs", "Run", "train"]
