"""The BERT encoder as a stack that can be cut: the lower part is shared by the experts, the upper is their own.

Parameter names are those of Hugging Face's BERT, so its weights load unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mope.predictor.config import EncoderConfig

NORM_EPS = 1e-12


class Embeddings(nn.Module):
    """Word + position + segment embeddings, normalised: ids, segments [B, S] -> [B, S, H]."""

    def __init__(self, config: EncoderConfig, dropout: float = 0.1) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1], device=ids.device)
        total = self.word_embeddings(ids) + self.token_type_embeddings(segments)
        out: Tensor = self.dropout(self.LayerNorm(total + self.position_embeddings(places)))
        return out


class SelfAttention(nn.Module):
    """Non-causal attention over what `mask` [B, 1, 1, S] lets through."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, size, width = x.shape

        def split(y: Tensor) -> Tensor:
            return y.view(batch, size, self.heads, width // self.heads).transpose(1, 2)

        seen = functional.scaled_dot_product_attention(
            split(self.query(x)), split(self.key(x)), split(self.value(x)), attn_mask=mask
        )
        return seen.transpose(1, 2).reshape(batch, size, width)


class Residual(nn.Module):
    """LayerNorm(x + dropout(dense(y))): the end of both halves of a layer."""

    def __init__(self, inner: int, width: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(inner, width)
        self.LayerNorm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        out: Tensor = self.LayerNorm(self.dropout(self.dense(y)) + x)
        return out


class Layer(nn.Module):
    """One post-norm BERT layer, [B, S, H] -> [B, S, H]."""

    def __init__(self, config: EncoderConfig, dropout: float = 0.1) -> None:
        super().__init__()
        width = config.hidden_size
        self.attention = nn.ModuleDict(
            {"self": SelfAttention(config), "output": Residual(width, width, dropout)}
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, config.intermediate_size)})
        self.output = Residual(config.intermediate_size, width, dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, mask), x)
        out: Tensor = self.output(functional.gelu(self.intermediate["dense"](x)), x)
        return out


class Stack(nn.Module):
    """Layers `first` to `last` of the encoder, with the embeddings below where `first` is 0.

    `x` is token ids int [B, S] where the embeddings are part of it, hidden states [B, S, H] elsewhere.
    Dropout after the embeddings is off: they are frozen or cached in most recipes.
    """

    def __init__(self, config: EncoderConfig, first: int, last: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.first = first
        self.embeddings = Embeddings(config, 0.0) if first == 0 else None
        self.layer = nn.ModuleDict({str(i): Layer(config, dropout) for i in range(first, last)})

    def forward(self, x: Tensor, segments: Tensor, mask: Tensor) -> Tensor:
        if self.embeddings is not None:
            x = self.embeddings(x, segments)
        seen = mask[:, None, None, :].to(torch.bool)
        for layer in self.layer.values():
            x = layer(x, seen)
        return x
