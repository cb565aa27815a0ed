"""Model shapes: published parameter counts, config.json of every family, and what cannot be cut or read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.errors import ConfigError
from mope.mapper.names import read_shipped
from mope.mapper.shapes import ModelShape

LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "torch_dtype": "bfloat16",
}
MIXTRAL = {
    **LLAMA,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 32000,
}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # number of elements in the published safetensors
        ("Llama-2-7b", 6_738_415_616),
        ("Llama-2-13b", 13_015_864_320),
        ("Llama-2-70b", 68_976_648_192),
        ("Llama-3.1-70B", 70_553_706_496),
        ("CodeLlama-34b", 33_743_970_304),
        ("Mistral-Small-24B", 23_572_403_200),
        ("Phi-4-mini", 3_836_021_760),
        ("Phi-3-medium-4k", 13_960_238_080),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Llama-3.2-1B", 1_235_814_400),
        ("Llama-3.2-3B", 3_212_749_824),
        ("Llama-3.1-405B", 405_853_388_800),
        ("Mistral-7B-v0.3", 7_248_023_552),
        ("Mistral-Nemo", 12_247_782_400),
        ("Mixtral-8x7B", 46_702_792_704),
        ("Mixtral-8x22B", 140_630_071_296),
    ],
)
def test_parameters_are_those_published(name: str, parameters: int) -> None:
    assert ModelShape.known(name).parameters == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [  # these carry biases, norms of queries and keys, or learned positions beside: up to 0.1 % more
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen2.5-72B", 72_706_203_648),
        ("Qwen3-8B", 8_190_735_360),
        ("Qwen3-30B-A3B", 30_532_122_624),
        ("Qwen3-235B-A22B", 235_093_634_560),
        ("Qwen2.5-14B", 14_770_033_664),
        ("Qwen2.5-32B", 32_763_876_352),
        ("Gemma-2-9b", 9_241_705_984),
        ("Gemma-2-27b", 27_227_128_320),
        ("Gemma-3-1b", 999_885_952),
        ("Phi-3-mini-4k", 3_821_079_552),
        ("Phi-4", 14_659_507_200),
        ("OPT-13b", 12_853_473_280),
    ],
)
def test_parameters_are_near_those_published(name: str, parameters: int) -> None:
    assert ModelShape.known(name).parameters == pytest.approx(parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "billions"), [("Mixtral-8x7B", 12.9), ("Qwen3-30B-A3B", 3.3), ("Qwen3-235B-A22B", 22.2)]
)
def test_a_token_passes_through_few_experts(name: str, billions: float) -> None:
    shape = ModelShape.known(name)
    assert shape.active_parameters / 1e9 == pytest.approx(billions, abs=0.06)
    assert shape.active_layer_weights < shape.layer_weights


def test_bytes_of_weights_and_cache() -> None:
    llama = ModelShape.known("Llama-2-7b")
    assert llama.weight_bytes == 2 * 6_738_415_616
    assert llama.kv_bytes_per_token == 2 * 32 * 4096 * 2  # 512 KiB
    assert ModelShape.known("Llama-2-70b").kv_bytes_per_token == 320 * 1024
    assert llama.layer_weights == 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096


@pytest.mark.parametrize("name", read_shipped("models.json")["models"])
def test_every_shipped_model_is_whole(name: str) -> None:
    shape = ModelShape.known(name)
    assert shape.name == name
    assert ModelShape.known(f"some-org/{name.upper()}-Instruct") == shape
    inner = shape.layers * shape.layer_weights
    ends = shape.parameters - inner
    assert ends == pytest.approx((1 if shape.tied else 2) * shape.vocab * shape.hidden, rel=0.001)
    assert shape.active_parameters <= shape.parameters
    shape.check_tp(1)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", "Llama-2-7b"),
        ("Meta-Llama-3-8B-Instruct", "Llama-3-8B"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "Mixtral-8x7B"),
        ("mistralai/Mistral-7B-Instruct-v0.1", "Mistral-7B-v0.1"),
        ("Mistral-7B", "Mistral-7B-v0.3"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B"),
        ("lmsys/vicuna-13b-v1.5", "Llama-2-13b"),
        ("microsoft/phi-4", "Phi-4"),
    ],
)
def test_names_as_they_stand_on_the_hub(asked: str, name: str) -> None:
    assert ModelShape.known(asked).name == name


def test_no_two_models_share_a_spelling() -> None:
    table = read_shipped("models.json")["models"]
    spelled = [
        *map(str.lower, table),
        *(other for entry in table.values() for other in entry.get("also", ())),
    ]
    assert len(spelled) == len(set(spelled))


def test_an_unknown_name_lists_those_near_it() -> None:
    with pytest.raises(ConfigError, match=r"'Llama-9-8B'.*llama-3-8b.*config\.json"):
        ModelShape.known("Llama-9-8B")


def test_a_config_equals_the_known_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    known = dataclasses.replace(ModelShape.known("Llama-3.1-8B"), name="x")
    assert ModelShape.from_config(LLAMA, "x") == known
    assert ModelShape.from_config(tmp_path / "config.json", "x") == known
    assert ModelShape.load(tmp_path) == dataclasses.replace(known, name=tmp_path.name)
    assert ModelShape.load("llama-3.1-8b").name == "Llama-3.1-8B"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_key_value_heads": None}, {"kv_heads": 32}),
        ({"head_dim": 256}, {"head_dim": 256}),
        ({"tie_word_embeddings": True}, {"tied": True}),
        ({"model_type": "gemma2", "sliding_window": 4096}, {"window": 4096, "full_layers": 16, "tied": True}),
        ({"model_type": "gemma3_text", "sliding_window": 512}, {"window": 512, "full_layers": 5}),
        ({"model_type": "mistral", "sliding_window": 4096}, {"window": 4096, "full_layers": 0}),
        ({"model_type": "qwen2", "sliding_window": 4096}, {"window": None}),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 4096,
                "use_sliding_window": True,
                "max_window_layers": 28,
            },
            {"window": 4096, "full_layers": 28},
        ),
        ({"sliding_window": 8192, "max_position_embeddings": 8192}, {"window": None}),
        (
            {"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 16},
            {"full_layers": 16},
        ),
        ({"torch_dtype": "float32"}, {"bytes_per_weight": 4.0}),
        ({"quantization_config": {"quant_method": "fp8"}}, {"bytes_per_weight": 1.0}),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, {"bytes_per_weight": 0.5 + 20 / 1024}),
        ({"quantization_config": {"load_in_8bit": True}}, {"bytes_per_weight": 1.0}),
        (
            {"quantization_config": {"config_groups": {"group_0": {"weights": {"num_bits": 8}}}}},
            {"bytes_per_weight": 1.0},
        ),
    ],
)
def test_what_a_config_may_say(change: dict[str, Any], expected: dict[str, Any]) -> None:
    shape = ModelShape.from_config({**LLAMA, **change}, "x")
    assert {key: getattr(shape, key) for key in expected} == expected


def test_experts_of_each_family() -> None:
    assert ModelShape.from_config(MIXTRAL, "Mixtral-8x7B") == ModelShape.known("Mixtral-8x7B")
    qwen = {**LLAMA, "model_type": "qwen2_moe", "num_experts": 60, "num_experts_per_tok": 4}
    qwen |= {"moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "decoder_sparse_step": 2}
    shape = ModelShape.from_config({**qwen, "mlp_only_layers": [1]}, "x")
    assert (shape.ffn, shape.shared_ffn, shape.dense_layers, shape.dense_ffn) == (1408, 5632, 17, 14336)
    glm = {**LLAMA, "n_routed_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 1408}
    shape = ModelShape.from_config({**glm, "n_shared_experts": 2, "first_k_dense_replace": 3}, "x")
    assert (shape.experts, shape.shared_ffn, shape.dense_layers) == (128, 2816, 3)
    per_expert = 3 * 4096 * 1408
    assert shape.ffn_weights_per_layer == per_expert * 130 + 4096 * 128
    assert shape.active_ffn_weights_per_layer == per_expert * 10 + 4096 * 128
    dense = 3 * 4096 * 14336
    assert shape.layer_weights * 32 == (
        32 * (shape.attention_weights_per_layer + 8192) + 29 * shape.ffn_weights_per_layer + 3 * dense
    )


def test_older_decoders_have_two_matrices() -> None:
    gpt2 = {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257}
    shape = ModelShape.from_config(gpt2, "gpt2")
    assert (shape.gated, shape.tied, shape.ffn, shape.kv_heads) == (False, True, 3072, 12)
    assert shape.parameters == pytest.approx(124.4e6, rel=0.01)  # positions are 0.6 % of so small a model
    opt = {"model_type": "opt", "num_hidden_layers": 40, "hidden_size": 5120, "num_attention_heads": 40}
    opt |= {"ffn_dim": 20480, "vocab_size": 50272, "torch_dtype": "float16"}
    assert ModelShape.from_config(opt, "OPT-13b") == ModelShape.known("OPT-13b")


def test_the_text_part_of_a_model_that_also_sees() -> None:
    inner = {key: value for key, value in LLAMA.items() if key != "torch_dtype"}
    shape = ModelShape.from_config(
        {"model_type": "mistral3", "text_config": inner, "torch_dtype": "float32"}, "x"
    )
    assert (shape.layers, shape.bytes_per_weight) == (32, 4.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": None}, "no num_hidden_layers"),
        ({"hidden_size": -1}, r"hidden_size = -1.*from 1 to"),
        ({"vocab_size": 1.5}, r"vocab_size = 1\.5"),
        ({"vocab_size": True}, "vocab_size = True"),
        ({"vocab_size": 10**9}, "vocab_size = 1000000000"),
        ({"intermediate_size": "wide"}, "intermediate_size = 'wide'"),
        ({"num_key_value_heads": 7}, r"heads = 32, kv_heads = 7.*divides"),
        ({"num_attention_heads": 30, "num_key_value_heads": 30}, r"4096 over 30 heads.*whole head_dim"),
        ({"kv_lora_rank": 512}, r"kv_lora_rank = 512.*MLA"),
        ({"is_encoder_decoder": True}, "decoder alone"),
        ({"tie_word_embeddings": "yes"}, "true or false"),
        ({"torch_dtype": "int3"}, r"torch_dtype = 'int3'.*bfloat16"),
        ({"quantization_config": {"quant_method": "odd"}}, r"method 'odd'.*awq"),
        ({"num_local_experts": 4, "num_experts_per_tok": 5}, r"active_experts = 5 of experts = 4"),
        ({"num_local_experts": 4}, "no num_experts_per_tok"),
    ],
)
def test_a_config_that_cannot_be_read_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        ModelShape.from_config({**LLAMA, **change}, "m")
    assert caught.value.exit_code == 2


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json \(No such file"):
        ModelShape.from_config(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="with a list"):
        ModelShape.from_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff{")
    with pytest.raises(ConfigError, match="not JSON"):
        ModelShape.from_config(tmp_path)


@pytest.mark.parametrize(
    ("name", "tp", "message"),
    [
        ("Llama-2-7b", 3, r"tensor parallel 3.*32 heads"),
        ("Llama-2-7b", 0, "at least 1"),
        ("Qwen2.5-7B", 8, r"tensor parallel 8.*28 heads"),
        ("Phi-4", 4, r"tensor parallel 4.*10 KV heads"),
    ],
)
def test_a_cut_that_does_not_fit_says_the_numbers(name: str, tp: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ModelShape.known(name).check_tp(tp)


def test_key_value_heads_are_copied_past_their_number() -> None:
    shape = ModelShape.known("Llama-2-70b")
    assert [shape.kv_heads_per_gpu(tp) for tp in (1, 2, 8, 16)] == [8, 4, 1, 1]
    assert [shape.heads_per_gpu(tp) for tp in (1, 8, 16)] == [64, 8, 4]


@given(
    st.dictionaries(st.sampled_from(sorted(MIXTRAL)), st.none() | st.booleans() | st.integers() | st.text())
)
def test_a_config_is_read_or_refused_and_nothing_else(change: dict[str, Any]) -> None:
    try:
        shape = ModelShape.from_config({**MIXTRAL, **change}, "x")
    except ConfigError:
        return
    assert 0 < shape.active_parameters <= shape.parameters
