"""A recipe: every choice a training run makes, with its default written once. Presets are TOML files beside this."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from mope.errors import ConfigError
from mope.predictor.config import LEVELS, EncoderConfig, TextConfig
from mope.settings import apply_settings, parse_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def _doc(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass(frozen=True)
class WeightsConfig:
    """Where the encoder starts."""

    source: str = field(
        default="",
        metadata=_doc("folder, Hub id or `package:NAME` with pretrained BERT weights; empty: random"),
    )
    fallback: str = field(default="", metadata=_doc("tried where `source` cannot be had"))
    vocab_words: int = field(
        default=4096, metadata=_doc("size of the vocabulary learned when there are no weights")
    )


@dataclass(frozen=True)
class OptimConfig:
    """How a stage is optimised."""

    batch: int = field(default=32, metadata=_doc("texts a step"))
    rows_per_text: int = field(default=8, metadata=_doc("rows (served models) drawn of one text in a pass"))
    accumulate: int = field(default=1, metadata=_doc("batches summed before a step"))
    lr: float = field(default=1e-4, metadata=_doc("peak rate of the top encoder layer"))
    head_lr: float = field(default=1e-3, metadata=_doc("peak rate of the head"))
    layer_decay: float = field(default=0.9, metadata=_doc("rate of each layer relative to the one above"))
    weight_decay: float = field(default=0.01, metadata=_doc("AdamW's"))
    warmup: float = field(default=0.06, metadata=_doc("share of the steps spent rising"))
    clip: float = field(default=1.0, metadata=_doc("gradient norm limit"))
    dropout: float = field(default=0.1, metadata=_doc("in layers and head"))
    token_loss: float = field(
        default=0.5, metadata=_doc("weight of the loss in tokens beside the one in logs")
    )
    patience: int = field(default=3, metadata=_doc("validations without a better MAE before a stage stops"))
    validations: int = field(default=3, metadata=_doc("validations in a stage"))
    validation_rows: int = field(
        default=3000, metadata=_doc("rows of the validation part looked at while training")
    )
    chunk: int = field(default=200, metadata=_doc("steps between checkpoints"))


@dataclass(frozen=True)
class EpochsConfig:
    """Passes over the training texts, stage by stage; 0 leaves a stage out where it can be."""

    proxy: float = field(default=1.0, metadata=_doc("the single model over all lengths"))
    proxy_tower: float = field(
        default=1.0, metadata=_doc("more passes of the proxy's upper layers, to match the experts'")
    )
    router: float = field(default=1.0, metadata=_doc("encoder router"))
    experts: float = field(default=1.0, metadata=_doc("each expert over the rows of its bucket"))
    joint: float = field(default=0.0, metadata=_doc("router and experts together, as one mixture"))


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    preset: str = field(default="tiny", metadata=_doc("name of the recipe"))
    seed: int = field(default=0, metadata=_doc("seeds everything that draws"))
    percentiles: tuple[float, ...] = field(
        default=(33.0, 66.0, 99.0), metadata=_doc("short, medium, training cap")
    )
    router: str = field(
        default="encoder",
        metadata=_doc("encoder: one is trained beside the lexical router; lexical: that one alone"),
    )
    routing: str = field(
        default="auto", metadata=_doc("hard, soft, or auto; auto also picks the router, by validation MAE")
    )
    shared_layers: int = field(
        default=1, metadata=_doc("lower layers shared by the experts; 0: encoders of their own")
    )
    frozen_layers: int = field(
        default=0, metadata=_doc("lowest layers never trained (the embeddings always are frozen)")
    )
    overlap: float = field(
        default=0.0,
        metadata=_doc(
            "how far an expert also learns rows the router would send it: 0 its bucket alone, 1 routed rows"
        ),
    )
    min_model_rows: int = field(default=20, metadata=_doc("served models with fewer rows count as unknown"))
    model_dropout: float = field(
        default=0.1, metadata=_doc("share of rows whose model is hidden while training")
    )
    model_shrink: float = field(
        default=1.0,
        metadata=_doc(
            "how far the effect of a served model is held to the population's: rows it weighs like"
        ),
    )
    censored: bool = field(
        default=True, metadata=_doc("a length at its cap counts as at least that long, not as that long")
    )
    sampling: bool = field(
        default=True, metadata=_doc("read temperature and top_p where the training data tells them")
    )
    sampling_dropout: float = field(
        default=0.5, metadata=_doc("share of rows whose sampling settings are hidden while training")
    )
    precision: str = field(
        default="auto", metadata=_doc("Lightning precision; auto: bf16-mixed where the device has it")
    )
    devices: str = field(default="auto", metadata=_doc("Lightning devices"))
    strategy: str = field(default="auto", metadata=_doc("Lightning strategy, such as ddp"))
    nodes: int = field(default=1, metadata=_doc("machines"))
    threads: int = field(default=0, metadata=_doc("CPU threads; 0: all cores"))
    origin: str = field(
        default="",
        metadata=_doc("hash of the bundle that all weights start from; set by `mope train --from`"),
    )
    quantiles: tuple[float, ...] = LEVELS
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    epochs: EpochsConfig = field(default_factory=EpochsConfig)

    def __post_init__(self) -> None:
        if self.router not in ("lexical", "encoder"):
            raise ConfigError(f"router {self.router!r}", "lexical or encoder")
        if self.routing not in ("auto", "hard", "soft"):
            raise ConfigError(f"routing {self.routing!r}", "auto, hard or soft")
        depth = self.encoder.num_hidden_layers
        if not 0 <= self.shared_layers < depth:
            raise ConfigError(
                f"shared_layers {self.shared_layers}", f"0 to {depth - 1} (the encoder has {depth} layers)"
            )
        if not 0 <= self.frozen_layers <= depth:
            raise ConfigError(f"frozen_layers {self.frozen_layers}", f"0 to {depth}")
        if not 0 <= self.seed < 1 << 32:
            raise ConfigError(f"seed {self.seed}", "0 to 4294967295")
        for name in ("model_dropout", "sampling_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} {getattr(self, name):g}", "a share from 0 to 1")
        if self.model_shrink < 0:
            raise ConfigError(f"model_shrink {self.model_shrink:g}", "0 or more")
        if self.optim.batch < 1 or self.optim.chunk < 1 or self.optim.rows_per_text < 1:
            raise ConfigError("a batch, chunk or rows_per_text below 1", "at least 1")
        if self.epochs.proxy <= 0 or self.epochs.experts <= 0:
            raise ConfigError("no epochs for the proxy or the experts", "more than 0")
        if self.epochs.joint > 0 and (self.router != "encoder" or not self.shared_layers):
            raise ConfigError(
                "joint training without an encoder router on shared layers",
                "router encoder, shared_layers >= 1",
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for run.json and hashing."""
        return asdict(self)


def presets() -> list[str]:
    """Names of the recipes that ship."""
    folder = files("mope.training") / "recipes"
    return sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))


def load_recipe(
    preset: str | None = None, file: str | Path | None = None, settings: Iterable[str] = ()
) -> Recipe:
    """A preset, then a recipe file over it, then `key=value` settings over both."""
    recipe = Recipe()
    if preset is not None or file is None:
        name = preset or "minilm"
        if name not in presets():
            raise ConfigError(
                f"preset {name!r}",
                f"one of {', '.join(presets())}",
                "or give your own with --recipe FILE.toml",
            )
        text = (files("mope.training") / "recipes" / f"{name}.toml").read_text()
        recipe = overlay(recipe, _parse(text, name), name)
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {str(file)!r} ({error})", "a readable TOML file") from None
        recipe = overlay(recipe, _parse(text, str(file)), str(file))
    return apply_settings(recipe, parse_settings(settings, Recipe))


def _parse(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"recipe {name!r} is not TOML ({error})", "a TOML file") from None


def overlay(base: Any, values: Mapping[str, Any], where: str) -> Any:
    """`base` (a frozen dataclass) with `values` put over it; unknown keys are refused by name."""
    known = {f.name: getattr(base, f.name) for f in fields(base)}
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}", f"one of {', '.join(known)}")
        old = known[key]
        if is_dataclass(old):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {key} = {value!r}", "a table")
            changes[key] = overlay(old, value, f"{where}: {key}")
        else:
            changes[key] = _like(old, value, f"{where}: {key}")
    return replace(base, **changes)


def _like(old: Any, value: Any, where: str) -> Any:
    """`value` in the type of the default it replaces."""
    if isinstance(old, tuple) and isinstance(value, list) and all(isinstance(v, (int, float)) for v in value):
        return tuple(map(float, value))
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(old) is not type(value):
        raise ConfigError(f"{where} = {value!r}", f"a value like {old!r}")
    return value
