"""What a bundle is: its format number, bounds, text rule, encoder shape, routing. Written to config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from itertools import pairwise
from sys import float_info
from typing import Any, TypeVar

from mope.data.split import Bounds
from mope.errors import BadInput, BundleError

FORMAT = 1
LEVELS: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
ROUTERS = ("lexical", "encoder", "both")
ROUTINGS = ("hard", "soft")
MAX_FIELD = 1_000_000  # no size in a config may exceed this: a hostile file must not drive an allocation
MAX_LAYERS = 1_000  # modules are built one by one, even without memory
MAX_SEED = 2**32 - 1

T = TypeVar("T")


@dataclass(frozen=True)
class TextConfig:
    """How many tokens of what the encoder reads: head and tail of the prompt, then the context before it."""

    prompt_head: int = 48
    prompt_tail: int = 24
    earlier_prompt: int = 20
    answer_tail: int = 16

    @property
    def max_tokens(self) -> int:
        """Longest input the rule can make, special tokens included."""
        return self.prompt_head + self.prompt_tail + self.earlier_prompt + self.answer_tail + 4


@dataclass(frozen=True)
class EncoderConfig:
    """Shape of the BERT encoder. Defaults are MiniLM-L6's."""

    hidden_size: int = 384
    num_hidden_layers: int = 6
    num_attention_heads: int = 12
    intermediate_size: int = 1536
    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2


@dataclass(frozen=True)
class BundleConfig:
    """Everything about a bundle that is not a weight.

    `shared_layers`: how many lower layers (with the embeddings) all experts share; 0 gives every expert an
    encoder of its own, as in the paper. `files` lists the sha256 of each weight file.
    """

    bounds: Bounds
    preset: str = "tiny"
    format: int = FORMAT
    mope_version: str = ""
    quantiles: tuple[float, ...] = LEVELS
    router: str = "encoder"
    routing: str = "soft"
    shared_layers: int = 0
    text: TextConfig = field(default_factory=TextConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    features: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tokenizer: str = ""
    data_hash: str = ""
    seed: int = field(default=0, metadata={"largest": MAX_SEED})
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check = _Check()
        check(self.format == FORMAT, f"format number {self.format!r}", f"{FORMAT}")
        check(self.router in ROUTERS, f"router {self.router!r}", f"one of {ROUTERS}")
        check(self.routing in ROUTINGS, f"routing {self.routing!r}", f"one of {ROUTINGS}")
        levels = self.quantiles
        rising = all(a < b for a, b in pairwise(levels))
        check(
            0.5 in levels and rising and levels[0] > 0 and levels[-1] < 1,
            f"quantiles {levels}",
            "rising, with 0.5",
        )
        check({0.1, 0.9} <= set(levels), f"quantiles {levels}", "0.1 and 0.9 among them")
        e = self.encoder
        check(min(asdict(e).values()) > 0, f"an encoder with a size of 0 ({e})", "sizes above 0")
        check(
            e.hidden_size % e.num_attention_heads == 0,
            f"{e.num_attention_heads} heads for width {e.hidden_size}",
        )
        check(e.num_hidden_layers <= MAX_LAYERS, f"{e.num_hidden_layers} layers", f"at most {MAX_LAYERS}")
        check(
            0 <= self.shared_layers < e.num_hidden_layers,
            f"shared_layers {self.shared_layers}",
            "below the depth",
        )
        check(
            self.text.max_tokens <= e.max_position_embeddings,
            f"text of {self.text.max_tokens} tokens",
            "fewer",
        )

    @property
    def most_bytes(self) -> int:
        """What a network's file may have: all layers and a head in fp32, a quarter and 4 MiB for names and nodes."""
        e, outputs = self.encoder, max(len(self.quantiles), 3)
        tables = (e.vocab_size + e.max_position_embeddings + e.type_vocab_size) * e.hidden_size
        layer = 4 * e.hidden_size**2 + 2 * e.hidden_size * e.intermediate_size
        head = 256 * (2 * e.hidden_size + len(self.features) + outputs + 256) + 32 * (len(self.models) + 1)
        return 5 * (tables + e.num_hidden_layers * layer + head) + (4 << 20)

    def to_json(self) -> str:
        """The config.json text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> BundleConfig:
        """Read and check a config.json; raises `BundleError` with the field at fault."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BundleError(
                f"config.json is not JSON ({error})", "the file mope wrote", "fetch the bundle again"
            ) from None
        if not isinstance(raw, dict):
            raise BundleError("config.json holds no object", "the file mope wrote")
        if raw.get("format") != FORMAT:
            raise BundleError(
                f"bundle format {raw.get('format')!r}",
                f"format {FORMAT}",
                "use the mope version that wrote it, or train again",
            )
        raw["bounds"] = _build(Bounds, raw.get("bounds"), "bounds")
        raw["text"] = _build(TextConfig, raw.get("text", {}), "text")
        raw["encoder"] = _build(EncoderConfig, raw.get("encoder", {}), "encoder")
        return _build(cls, raw, "config.json")


class _Check:
    def __call__(self, ok: bool, came: str, expected: str = "a consistent config") -> None:
        if not ok:
            raise BundleError(f"config.json has {came}", expected)


def _build(cls: type[T], raw: object, where: str) -> T:
    """`cls` from a JSON object: unknown keys, wrong types and absurd sizes are refused by name."""
    if not isinstance(raw, Mapping):
        raise BundleError(f"{where} is {type(raw).__name__}", "an object")
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(map(str, raw)) - set(known))
    if unknown:
        raise BundleError(f"{where} has unknown keys {unknown}", f"keys among {sorted(known)}")
    values = {name: _value(raw[name], known[name], f"{where}: {name}") for name in raw}
    try:
        return cls(**values)
    except TypeError as error:
        raise BundleError(f"{where} is incomplete ({error})", f"keys {sorted(known)}") from None
    except BundleError:
        raise
    except BadInput as error:  # what the part itself says of its values
        raise BundleError(f"config.json has {error.came}", error.expected) from None


def _value(value: Any, of: Field[Any], where: str) -> Any:
    """One JSON value checked against the annotation of the field it is meant for."""
    kind = str(of.type)
    ok: bool
    if kind == "int":
        most = of.metadata.get("largest", MAX_FIELD)
        ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
    elif kind == "float":
        ok = _finite(value)
    elif kind == "str":
        ok = isinstance(value, str)
    elif kind.startswith("tuple[float"):
        ok = isinstance(value, (list, tuple)) and all(map(_finite, value))
        value = tuple(map(float, value)) if ok else value
    elif kind.startswith("tuple[str"):
        ok = isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)
        value = tuple(value) if ok else value
    elif kind.startswith("dict[str, str"):
        ok = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    else:
        ok = True  # nested dataclasses were built before
    if not ok:
        raise BundleError(f"{where} is {repr(value)[:60]}", kind)
    return value


def _finite(value: object) -> bool:
    """Whether a JSON value is a number that a float can hold."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= float_info.max  # type: ignore[arg-type]
