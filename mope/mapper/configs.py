"""A Hugging Face config.json read as the fields of a `ModelShape`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mope.errors import ConfigError

Config = Mapping[str, Any]

LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
HEADS = ("num_attention_heads", "n_head", "n_heads")
KV_HEADS = ("num_key_value_heads", "num_kv_heads")
FFN = ("intermediate_size", "ffn_dim", "n_inner")
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
MOST = 10**7  # no width or count of a decoder is near this
PLAIN = {
    "gpt2",
    "opt",
    "gpt_neox",
    "gpt_bigcode",
    "gptj",
    "bloom",
    "falcon",
    "phi",
    "starcoder2",
    "mpt",
    "codegen",
}
TIED = {"gpt2", "opt", "gemma", "gemma2", "gemma3", "gemma3_text", "bloom", "cohere", "cohere2"}
DTYPES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "float8_e4m3fn": 1.0}
# A weight of 4 bits in groups of 128 with a 16-bit scale and a 4-bit zero point; of 4 bits in groups of 32 with 8.
GROUP_OVERHEAD, MXFP4 = (16 + 4) / 128 / 8, (4 + 8 / 32) / 8
FOREIGN = {
    "kv_lora_rank": "latent attention (MLA), whose KV cache has another form",
    "linear_num_value_heads": "linear attention beside full attention",
    "mamba_d_state": "state-space layers",
    "ssm_cfg": "state-space layers",
    "interleave_moe_layer_step": "layers of two kinds in turn (Llama 4)",
    "num_heads_per_layer": "layers of different widths",
}


def read_config(source: Config | str | Path, name: str = "") -> dict[str, Any]:
    """The fields of `ModelShape` found in a config (a mapping, its file, or the folder that holds it)."""
    whole, name = _open(source, name)
    inner = whole.get("text_config")
    text = (
        {**{k: v for k, v in whole.items() if k in INHERITED}, **inner}
        if isinstance(inner, Mapping)
        else whole
    )
    config = Keys(name, text)
    config.refuse_foreign()
    hidden, heads, layers = config.count(*HIDDEN), config.count(*HEADS), config.count(*LAYERS)
    return {
        "name": name,
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": 1 if config.get("multi_query") is True else config.count(*KV_HEADS, default=heads),
        "head_dim": config.head_dim(hidden, heads),
        "vocab": config.count("vocab_size"),
        "gated": config.kind not in PLAIN and not (config.kind == "" and "ffn_dim" in text),
        "tied": config.flag("tie_word_embeddings", config.kind in TIED),
        "bytes_per_weight": config.bytes_per_weight(),
        **_feed_forward(config, hidden, layers),
        **_window(config, layers),
    }


INHERITED = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")


def _open(source: Config | str | Path, name: str) -> tuple[Config, str]:
    if isinstance(source, Mapping):
        return source, name or str(source.get("_name_or_path") or source.get("model_type") or "model")
    path = Path(source)
    file = path / "config.json" if path.is_dir() else path
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{file} ({error.strerror})", "a config.json, or the folder that holds it"
        ) from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file}, which is not JSON", "the config.json of a model") from None
    if not isinstance(read, dict):
        raise ConfigError(
            f"{file} with a {type(read).__name__}", "an object with the keys of a model's config"
        )
    return read, name or file.resolve().parent.name


class Keys:
    """A config whose values are checked as they are read; the first name that is there counts."""

    def __init__(self, name: str, config: Config) -> None:
        self.name, self.config = name, config
        self.kind = str(config.get("model_type") or "")

    def get(self, key: str) -> Any:
        return self.config.get(key)

    def fail(self, came: str, expected: str, todo: str = "") -> ConfigError:
        return ConfigError(f"config of {self.name!r}: {came}", expected, todo)

    def refuse_foreign(self) -> None:
        for key, why in FOREIGN.items():
            if self.get(key):
                raise self.fail(f"{key} = {self.get(key)}", f"a decoder of one kind of attention, not {why}")
        if self.get("is_encoder_decoder") is True:
            raise self.fail("is_encoder_decoder = True", "a decoder alone")

    def count(self, *keys: str, default: int | None = None, least: int = 1) -> int:
        key = next((key for key in keys if self.get(key) is not None), None)
        if key is None and default is not None:
            return default
        if key is None:
            raise self.fail(f"no {keys[0]}", f"{keys[0]}, a whole number")
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise self.fail(f"{key} = {value!r}", f"a whole number from {least} to {MOST:,}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(f"{key} = {value!r}", "true or false")
        return default if value is None else value

    def head_dim(self, hidden: int, heads: int) -> int:
        if self.get("head_dim") is None and hidden % heads:
            raise self.fail(f"hidden_size {hidden} over {heads} heads", "a whole head_dim")
        return self.count("head_dim", default=hidden // heads)

    def bytes_per_weight(self) -> float:
        """From the quantisation where there is one, else from the dtype; 16 bits where neither is told."""
        quantised = self.get("quantization_config")
        if isinstance(quantised, Mapping):
            return self._quantised(quantised)
        dtype = self.get("torch_dtype") or self.get("dtype") or "bfloat16"
        if str(dtype) not in DTYPES:
            raise self.fail(f"torch_dtype = {dtype!r}", " or ".join(DTYPES))
        return DTYPES[str(dtype)]

    def _quantised(self, how: Mapping[str, Any]) -> float:
        method = str(how.get("quant_method") or "")
        bits = how.get("bits") or how.get("w_bit") or _group_bits(how)
        if method in ("fp8", "fbgemm_fp8") or how.get("load_in_8bit") is True:
            return 1.0
        if method == "mxfp4":
            return MXFP4
        if how.get("load_in_4bit") is True:
            bits = 4
        if bits not in (2, 3, 4, 5, 6, 8, 16):
            raise self.fail(
                f"quantization_config of method {method!r} without a number of bits",
                "gptq, awq, fp8, mxfp4, bitsandbytes or compressed-tensors",
                "take it out of the config and set bytes_per_weight",
            )
        return float(bits / 8 + (GROUP_OVERHEAD if bits < 8 else 0))


def _group_bits(how: Mapping[str, Any]) -> Any:
    """The bits of compressed-tensors' first group of weights."""
    groups = how.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    return weights.get("num_bits") if isinstance(weights, Mapping) else None


def _feed_forward(config: Keys, hidden: int, layers: int) -> dict[str, int]:
    experts = config.count(*EXPERTS, default=1, least=0)
    if experts <= 1:
        # The GPT-2 and Falcon families leave the width out: it is four times the hidden one.
        plain = 4 * hidden if config.kind in PLAIN else None
        return {"ffn": config.count(*FFN, default=plain)}
    width = config.count("moe_intermediate_size", *FFN)
    shared = config.count("shared_expert_intermediate_size", default=0, least=0)
    shared = shared or width * config.count("n_shared_experts", "num_shared_experts", default=0, least=0)
    dense = _dense_layers(config, layers)
    found = {"ffn": width, "experts": experts, "shared_ffn": shared, "dense_layers": dense}
    found["active_experts"] = config.count("num_experts_per_tok", "num_experts_per_token", "moe_top_k")
    return {**found, "dense_ffn": config.count(*FFN)} if dense else found


def _dense_layers(config: Keys, layers: int) -> int:
    """How many layers have no experts: the first k (DeepSeek, GLM), or those a step or a list leaves out (Qwen)."""
    first = config.count("first_k_dense_replace", default=0, least=0)
    step, left_out = config.count("decoder_sparse_step", default=1), config.get("mlp_only_layers") or ()
    with_experts = [i for i in range(first, layers) if (i + 1) % step == 0 and i not in left_out]
    return layers - len(with_experts)


def _window(config: Keys, layers: int) -> dict[str, int]:
    """The sliding window and how many layers do not have it; nothing where attention sees everything."""
    key = "sliding_window"
    used = config.flag("use_sliding_window", not config.kind.startswith(("qwen2", "qwen3")))
    window = config.count(key, default=0, least=0)
    reach = config.count("max_position_embeddings", default=MOST)
    full = _full_layers(config, layers)
    if not used or not window or window >= reach or full == layers:
        return {}
    return {"window": window, "full_layers": full}


def _full_layers(config: Keys, layers: int) -> int:
    kinds = config.get("layer_types")
    if isinstance(kinds, list):
        return sum(kind == "full_attention" for kind in kinds)
    if config.kind.startswith("qwen"):
        return min(layers, config.count("max_window_layers", default=layers, least=0))
    every = {"gemma2": 2, "gemma3_text": 6, "gemma3": 6, "cohere2": 4}.get(config.kind, 0)
    every = config.count("sliding_window_pattern", default=every, least=0)
    return layers // every if every else 0
