"""Experts as models of `transformers`: a folder each that `AutoModel.from_pretrained` opens, with or without mope.

config.json says `bert`, and the weights carry the prefix that every BERT with a head has. So `AutoModel` gives the
encoder, trunk and expert in one, and leaves the head aside (its pooler is not ours: read the hidden states);
`ExpertModel.from_pretrained` of the same folder gives the forecast's quantiles.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertPreTrainedModel

from mope.files import write_text
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.config import BundleConfig
from mope.predictor.expert import Head, rising
from mope.predictor.torch_backend import load_network
from mope.types import BUCKETS


class ExpertConfig(BertConfig):  # type: ignore[no-untyped-call]
    """BERT's shape and what the head reads: levels of the quantiles, names of features and of served models."""

    model_type = "mope-expert"

    def __init__(
        self,
        levels: tuple[float, ...] = (0.1, 0.5, 0.9),
        features: tuple[str, ...] = (),
        models: tuple[str, ...] = (),
        **bert: Any,
    ) -> None:
        super().__init__(**bert)
        self.levels, self.features, self.models = list(levels), list(features), list(models)


class ExpertModel(BertPreTrainedModel):  # type: ignore[no-untyped-call]
    """An expert whole: ids, mask, segments [B, S], features [B, F] (NaN where unknown) and model [B] (0 unknown)
    into log1p(length) at `config.levels`, [B, K]."""

    config_class = ExpertConfig
    base_model_prefix = "bert"

    def __init__(self, config: ExpertConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = Head(config.hidden_size, len(config.features), len(config.models), len(config.levels))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        features: Tensor,
        model: Tensor,
    ) -> Tensor:
        hidden = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        seen = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled = torch.cat([(hidden * seen).sum(1) / seen.sum(1), hidden[:, 0]], dim=1)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        return rising(self.head(pooled, rows, features, model))


AutoConfig.register(ExpertConfig.model_type, ExpertConfig)
AutoModel.register(ExpertConfig, ExpertModel)


def save_experts(bundle: MoPE, folder: Path) -> dict[str, Path]:
    """Write a folder for each expert below `folder`: config.json, model.safetensors and the tokenizer's files."""
    written = {}
    for name in BUCKETS:
        model = ExpertModel(expert_config(bundle.config))
        model.load_state_dict(_weights(bundle, name))
        home = folder / name
        home.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(home)
        _tokenizer(bundle).save_pretrained(home)
        config = json.loads((home / "config.json").read_text(encoding="utf-8"))
        known = {"model_type": "bert", "architectures": ["BertModel"]}  # what transformers has a class for
        write_text(home / "config.json", json.dumps(config | known, indent=2) + "\n")
        written[name] = home
    return written


def expert_config(config: BundleConfig) -> ExpertConfig:
    """The whole encoder's shape: what experts share, and their own layers."""
    shape = asdict(config.encoder)
    return ExpertConfig(config.quantiles, config.features, config.models, layer_norm_eps=1e-12, **shape)


def _weights(bundle: MoPE, name: str) -> dict[str, Tensor]:
    """An expert's weights below the shared ones, under BERT's names."""
    expert = load_network(name, bundle.folder, bundle.config).state_dict()
    own = {key.removeprefix("encoder."): value for key, value in expert.items() if key.startswith("encoder.")}
    shared = (
        load_network(layout.TRUNK, bundle.folder, bundle.config).state_dict()
        if bundle.config.shared_layers
        else {}
    )
    head = {key: value for key, value in expert.items() if key.startswith("head.")}
    return head | {_bert(key): value for key, value in (shared | own).items()}


def _bert(key: str) -> str:
    return f"bert.encoder.{key}" if key.startswith("layer.") else f"bert.{key}"


def _tokenizer(bundle: MoPE) -> PreTrainedTokenizerFast:
    special = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=bundle.tokenizer, **special)  # type: ignore[no-untyped-call]
