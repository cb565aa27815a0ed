"""The shape of a served model: how many weights are read and what a token leaves in the KV cache."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mope.errors import ConfigError
from mope.mapper.names import close_names, read_shipped

# What a name may carry without naming another shape.
KINDS = {"hf", "chat", "instruct", "it", "pt", "base", "meta", "thinking"}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A decoder with grouped-query attention, dense or with experts. Widths and counts, no weights.

    `ffn` is the width of the feed-forward part, or of one expert; `shared_ffn` the width of experts that always
    run; `dense_layers` is how many layers have no experts but one feed-forward part of width `dense_ffn`.
    `window` is the number of tokens that attention reaches back, except in `full_layers` layers, which see all.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    gated: bool = True
    tied: bool = False
    experts: int = 1
    active_experts: int = 1
    shared_ffn: int = 0
    dense_layers: int = 0
    dense_ffn: int = 0
    bytes_per_weight: float = 2.0
    bytes_per_kv: float = 2.0
    window: int | None = None
    full_layers: int = 0

    def __post_init__(self) -> None:
        for key in ("layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "experts"):
            self._demand(getattr(self, key) >= 1, f"{key} = {getattr(self, key)}", "at least 1")
        heads = f"heads = {self.heads}, kv_heads = {self.kv_heads}"
        self._demand(self.heads % self.kv_heads == 0, heads, "kv_heads that divides heads")
        active = f"active_experts = {self.active_experts} of experts = {self.experts}"
        self._demand(1 <= self.active_experts <= self.experts, active, "between 1 and experts")
        dense = f"dense_layers = {self.dense_layers} of {self.layers}, dense_ffn = {self.dense_ffn}"
        whole = 0 <= self.dense_layers <= self.layers and (not self.dense_layers or self.dense_ffn >= 1)
        self._demand(whole, dense, "at most layers, and a dense_ffn where there are any")
        size = f"bytes_per_weight = {self.bytes_per_weight}, bytes_per_kv = {self.bytes_per_kv}"
        self._demand(0 < self.bytes_per_weight <= 8 and 0 < self.bytes_per_kv <= 8, size, "in (0, 8]")
        self._demand(self.shared_ffn >= 0, f"shared_ffn = {self.shared_ffn}", "at least 0")
        window = f"window = {self.window}, full_layers = {self.full_layers}"
        seen = 0 <= self.full_layers <= self.layers and (self.window is None or self.window >= 1)
        self._demand(seen, window, "a window of at least 1 token, full_layers at most layers")

    def _demand(self, holds: bool, came: str, expected: str) -> None:
        if not holds:
            raise ConfigError(f"model {self.name!r}: {came}", expected)

    @classmethod
    def from_config(cls, config: Mapping[str, Any] | str | Path, name: str = "") -> ModelShape:
        """The shape in a Hugging Face config.json: a mapping, the file, or the folder that holds it.

        Raises `ConfigError` naming the key where something is missing, absurd, or of another architecture.
        """
        from mope.mapper.configs import read_config

        return cls(**read_config(config, name))

    @classmethod
    def load(cls, source: str | Path) -> ModelShape:
        """From the path of a config.json or its folder where there is one, else a known name."""
        # `os.path` answers no where `Path` raises: on a name that is too long or holds NUL.
        return cls.from_config(source) if os.path.exists(source) else cls.known(str(source))

    @classmethod
    def known(cls, name: str) -> ModelShape:
        """A widely served model by name, with or without organisation, in any case.

        Raises `ConfigError` with the nearest names for one that is not listed.
        """
        table = read_shipped("models.json")["models"]
        listed = {key.lower(): key for key in table}
        for key, entry in table.items():
            listed.update((other, key) for other in entry.get("also", ()))
        found = next((listed[form] for form in _forms(name) if form in listed), None)
        if found is None:
            near = ", ".join(close_names(_forms(name)[0], listed))
            raise ConfigError(f"model {name!r}", f"one like {near}", "or give the path of its config.json")
        return cls(found, **{key: value for key, value in table[found].items() if key != "also"})

    @property
    def attention_weights_per_layer(self) -> int:
        """The four projections: hidden x head_dim x (2 heads + 2 kv_heads)."""
        return self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)

    @property
    def ffn_weights_per_layer(self) -> int:
        """All experts, the shared ones and the router of a layer (of one with experts, where there are both)."""
        return self._ffn_weights(self.experts)

    @property
    def active_ffn_weights_per_layer(self) -> int:
        """What one token passes through of `ffn_weights_per_layer`."""
        return self._ffn_weights(self.active_experts)

    def _ffn_weights(self, experts: int) -> int:
        router = self.hidden * self.experts if self.experts > 1 else 0
        return self._matrices * self.hidden * (experts * self.ffn + self.shared_ffn) + router

    @property
    def _matrices(self) -> int:
        return 3 if self.gated else 2

    @property
    def layer_weights(self) -> float:
        """Weights of one layer, the mean over layers, with its two norms."""
        return self._mean_layer(self.ffn_weights_per_layer)

    @property
    def active_layer_weights(self) -> float:
        """What one token passes through of `layer_weights`."""
        return self._mean_layer(self.active_ffn_weights_per_layer)

    def _mean_layer(self, ffn: int) -> float:
        return self.attention_weights_per_layer + 2 * self.hidden + self._all_ffn(ffn) / self.layers

    def _all_ffn(self, ffn: int) -> int:
        dense = self._matrices * self.hidden * self.dense_ffn
        return self.dense_layers * dense + (self.layers - self.dense_layers) * ffn

    @property
    def parameters(self) -> int:
        """All weights: layers, embedding, output head (where not tied), norms. Biases are left out (< 0.1 %)."""
        return self._total(self.ffn_weights_per_layer)

    @property
    def active_parameters(self) -> int:
        """Weights that one token passes through, embedding and output head included."""
        return self._total(self.active_ffn_weights_per_layer)

    def _total(self, ffn: int) -> int:
        attention = self.layers * (self.attention_weights_per_layer + 2 * self.hidden)
        ends = (1 if self.tied else 2) * self.vocab * self.hidden + self.hidden
        return attention + self._all_ffn(ffn) + ends

    @property
    def weight_bytes(self) -> float:
        """Memory of the weights."""
        return self.parameters * self.bytes_per_weight

    @property
    def kv_bytes_per_token(self) -> float:
        """Keys and values that a token leaves behind in all layers, before any copies for tensor parallelism."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_kv

    def check_tp(self, tp: int) -> None:
        """Raise `ConfigError` where the model cannot be cut over `tp` GPUs.

        Key-value heads are copied where there are fewer than GPUs; experts are dealt out where their width
        cannot be cut.
        """
        self._demand(tp >= 1, f"tensor parallel {tp}", "at least 1")
        self._demand(self.heads % tp == 0, f"tensor parallel {tp}", f"a divisor of its {self.heads} heads")
        fits = self.kv_heads % tp == 0 or tp % self.kv_heads == 0
        self._demand(
            fits, f"tensor parallel {tp}", f"a divisor or a multiple of its {self.kv_heads} KV heads"
        )
        cut = self.ffn % tp == 0 or (self.experts > 1 and self.experts % tp == 0)
        self._demand(cut, f"tensor parallel {tp}", f"a divisor of its feed-forward width {self.ffn}")

    def heads_per_gpu(self, tp: int) -> int:
        """Query heads on each of `tp` GPUs."""
        self.check_tp(tp)
        return self.heads // tp

    def kv_heads_per_gpu(self, tp: int) -> int:
        """Key-value heads on each of `tp` GPUs; at least one, so that they are copied past `kv_heads` GPUs."""
        self.check_tp(tp)
        return max(1, self.kv_heads // tp)


def _forms(name: str) -> list[str]:
    """The spellings a name is looked up under: bare, then without its kind, then without version or date."""
    bare = name.strip().rstrip("/").rpartition("/")[2].lower()
    words = [word for word in bare.split("-") if word not in KINDS]
    forms = [bare, "-".join(words)]
    while len(words) > 1 and words[-1].lstrip("v").replace(".", "").isdigit():
        words = words[:-1]
        forms.append("-".join(words))
    return forms
