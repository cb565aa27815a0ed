"""How a graph should route inside: an `If` for each expert, gathered stacked weights, or all experts.

    python scripts/routing_choice.py BUNDLE --output docs/routing_choice

BUNDLE has PyTorch weights. Each way answers the same hard-routed batches, in one graph from hidden states to the
chosen expert's quantiles, fp32, one CPU thread, taking turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info
from torch import Tensor, nn
from torch.nn import functional

from mope.export import routed as house
from mope.export.parity import prompts
from mope.export.trace import OPSET, write_graphs
from mope.files import write_text
from mope.machine import load_1m, machine
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.predictor.encoder import NORM_EPS
from mope.predictor.expert import Expert, rising
from mope.predictor.onnx_backend import Session, session_options
from mope.predictor.torch_backend import TorchBackend, load_network
from mope.types import BUCKETS

BATCHES = {1: 100, 8: 30, 32: 15}
TOKENS = 48


class Gathered(nn.Module):
    """`Expert` with weights of each row's own, gathered from stacks [3, ...]."""

    def __init__(self, experts: list[Expert], heads: int, layers: list[str]) -> None:
        super().__init__()
        self.heads, self.layers = heads, layers
        states = [expert.state_dict() for expert in experts]
        for name in states[0]:
            self.register_buffer(name.replace(".", "_"), torch.stack([state[name] for state in states]))

    def forward(self, x: Tensor, mask: Tensor, features: Tensor, model: Tensor, bucket: Tensor) -> Tensor:
        def own(name: str) -> Tensor:
            return getattr(self, name.replace(".", "_"))[bucket]

        def linear(y: Tensor, name: str) -> Tensor:
            return y @ own(f"{name}.weight").transpose(1, 2) + own(f"{name}.bias")[:, None]

        def norm(y: Tensor, name: str) -> Tensor:
            flat = functional.layer_norm(y, y.shape[-1:], eps=NORM_EPS)
            return flat * own(f"{name}.weight")[:, None] + own(f"{name}.bias")[:, None]

        def split(y: Tensor) -> Tensor:
            return y.view(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)

        seen = mask[:, None, None, :].to(torch.bool)
        for layer in self.layers:
            at = f"encoder.layer.{layer}"
            q, k, v = (split(linear(x, f"{at}.attention.self.{part}")) for part in ("query", "key", "value"))
            met = (
                functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
                .transpose(1, 2)
                .reshape(x.shape)
            )
            x = norm(linear(met, f"{at}.attention.output.dense") + x, f"{at}.attention.output.LayerNorm")
            wide = functional.gelu(linear(x, f"{at}.intermediate.dense"))
            x = norm(linear(wide, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
        weight = mask.unsqueeze(-1).to(x.dtype)
        pooled = torch.cat([(x * weight).sum(1) / weight.sum(1), x[:, 0]], dim=1)
        gone = torch.isnan(features)
        known = torch.where(gone, torch.zeros_like(features), features)
        level = (torch.sign(known) * torch.log1p(torch.abs(known)) - own("head.mean")) / own("head.scale")
        level = torch.where(gone, torch.zeros_like(level), level).clamp(-6, 6)
        facts = torch.cat([level, gone.to(level.dtype)], dim=1)[:, None]
        facts = functional.gelu(linear(functional.gelu(linear(facts, "head.facts.0")), "head.facts.2"))[:, 0]
        named = self.head_model_weight[bucket, model]
        mixed = functional.gelu(linear(torch.cat([pooled, facts, named], dim=1)[:, None], "head.mix.1"))
        return rising(linear(mixed, "head.out")[:, 0])


def gathered(bundle: MoPE, feed: dict[str, Any], path: Path) -> None:
    """Trace `Gathered` with free rows."""
    experts = [load_network(name, bundle.folder, bundle.config).eval() for name in BUCKETS]
    layers = [str(n) for n in range(bundle.config.shared_layers, bundle.config.encoder.num_hidden_layers)]
    module = Gathered(experts, bundle.config.encoder.num_attention_heads, layers)  # type: ignore[arg-type]
    rows = torch.export.Dim("rows", min=1, max=4096)
    args = tuple(torch.from_numpy(value) for value in feed.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(), args, dynamo=True, opset_version=OPSET, input_names=list(feed),
            output_names=["logs"], dynamic_shapes=[{0: rows}] * len(args), verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(path)


def branched(pieces: dict[str, onnx.ModelProto], bundle: MoPE, width: int, every: bool) -> onnx.ModelProto:
    """`mope.export.routed`'s `If`s, or all experts with a choice at the end."""
    canvas = house.Canvas()
    own = {"x": "x", "segments": "mask", "mask": "mask", "features": "features", "model": "model"}
    own["text"] = house._counted(canvas, "x", "text")
    if every:
        found = [canvas.place(pieces[name], name, own)[0] for name in BUCKETS]
        stacked = canvas.add("Concat", house._lifted(canvas, found), "stacked", axis=1)
        place = canvas.add("Unsqueeze", ["bucket", canvas.constant("one", np.array([1]))], "place")
        canvas.add("GatherND", [stacked, place], "logs", batch_dims=1)
    else:
        hot = canvas.constant("hot", np.eye(3, dtype=np.float32))
        chances = canvas.add("Gather", [hot, "bucket"], "chances", axis=0)
        canvas.add("Identity", [house._sent(canvas, pieces, own, chances, bundle.config)], "logs2")
        canvas.nodes[-1].output[0] = "chosen"
    out = "logs" if every else "chosen"
    kinds = {"x": (1, ["rows", "tokens", width]), "mask": (7, ["rows", "tokens"]), "model": (7, ["rows"]),
             "features": (1, ["rows", len(bundle.config.features)]), "bucket": (7, ["rows"])}  # fmt: skip
    graph = make_graph(
        canvas.nodes, "choice", [make_tensor_value_info(n, kind, shape) for n, (kind, shape) in kinds.items()],
        [make_tensor_value_info(out, 1, ["rows", len(bundle.config.quantiles)])], canvas.weights,
    )  # fmt: skip
    return make_model(graph, opset_imports=[make_opsetid("", OPSET)], ir_version=10)


def feeds(bundle: MoPE, size: int, seed: int) -> dict[str, Any]:
    """Hidden states of real prompts, cut to one length, and a made-up choice."""
    rng = np.random.default_rng(seed)
    requests = [prompts()[i] for i in rng.integers(0, 60, size)]
    batch = bundle.inputs(requests).batch(np.arange(size))
    hidden = bundle.backend.shared(batch)[torch.from_numpy(batch.text)].numpy()[:, :TOKENS]
    padding = [(0, 0), (0, TOKENS - hidden.shape[1])]
    return {
        "x": np.pad(hidden, [*padding, (0, 0)]), "mask": np.pad(batch.mask[batch.text][:, :TOKENS], padding),
        "features": batch.features, "model": batch.model, "bucket": rng.integers(0, 3, size),
    }  # fmt: skip


def main() -> None:
    """Read the arguments, measure, write OUTPUT.json and OUTPUT.md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    asked = parser.parse_args()
    bundle = MoPE.from_pretrained(asked.bundle, backend="torch")
    assert isinstance(bundle.backend, TorchBackend)
    assert bundle.config.shared_layers
    sessions = {}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        write_graphs(BUCKETS, bundle, home)
        pieces = {name: onnx.load(home / layout.onnx_file(name, "fp32")) for name in BUCKETS}
        width = bundle.config.encoder.hidden_size
        gathered(bundle, feeds(bundle, 5, 0), home / "gathered.onnx")
        for name, every in (("an If for each expert", False), ("all experts, then choose", True)):
            onnx.save(branched(pieces, bundle, width, every), home / f"{name}.onnx")
        for name in ("an If for each expert", "gathered", "all experts, then choose"):
            sessions[name] = ort.InferenceSession(home / f"{name}.onnx", session_options(Session()))
    rows = measure(bundle, sessions)
    document = {"machine": machine(), "tokens": TOKENS, "load_1m": load_1m(), "rows": rows}
    write_text(asked.output.with_suffix(".json"), json.dumps(document, indent=1) + "\n")
    write_text(asked.output.with_suffix(".md"), markdown(rows))
    print(markdown(rows))


def measure(bundle: MoPE, sessions: dict[str, ort.InferenceSession]) -> list[dict[str, Any]]:
    """Milliseconds of each way at each batch size; all ways must answer alike."""
    found = []
    for size, repeats in BATCHES.items():
        taken: dict[str, list[float]] = {name: [] for name in sessions}
        for turn in range(repeats):
            feed, answers = feeds(bundle, size, turn), {}
            for name, session in sessions.items():
                start = time.perf_counter()
                answers[name] = session.run(None, feed)[0]
                taken[name].append((time.perf_counter() - start) * 1e3)
            first, *rest = answers.values()
            assert all(np.allclose(first, other, atol=1e-4) for other in rest)
        found.append({"batch": size, **{name: float(np.median(times)) for name, times in taken.items()}})
    return found


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table."""
    names = [name for name in rows[0] if name != "batch"]
    lines = [f"| batch | {' | '.join(f'{name}, ms' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row['batch']} | {' | '.join(f'{row[name]:.2f}' for name in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
