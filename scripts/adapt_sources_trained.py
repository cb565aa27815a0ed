"""The sources of `adapt_sources.py`, told by encoders that were fine-tuned without them, four or three at a time.

    python scripts/adapt_sources_trained.py FOLDER --work DIR --output docs/adapt/sources-trained

Three bundles of the preset `minilm` (their proxies are what counts; a quarter of an hour of one core each), each of
all sources but those of one group, which hold each other's prompts, and without any prompt of that group. At most
10,000 conversations of a source (3,600 of ShareGPT, which have many turns) are read. The prompts and answers that are
judged, and how, are those of `adapt_sources.py`; the served model is not told.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from adapt_sources import LEAST, Told, arguments, decoding, first, order, plain, read, without

from mope.data.records import Example, LengthData
from mope.evaluation.bootstrap import Interval
from mope.machine import machine
from mope.predictor import layout
from mope.predictor.bundle import MoPE
from mope.training.recipe import load_recipe
from mope.training.train import train

GROUPS = (
    ("sharegpt", "castillo ShareGPT", "castillo DollyDataset", "oasst_sampling"),
    ("alpaca_davinci003", "castillo Alpaca", "gpt4_gpteacher", "chatgpt_halueval"),
    ("alpaca_eval", "hh_harmless", "moss_multiturn"),
)
MORE = 4  # as many conversations for training as for judging
SETTINGS = (
    "threads=1", "sampling_dropout=0", "router=lexical", "optim.rows_per_text=24", "optim.chunk=96", "epochs.proxy=2",
    "epochs.proxy_tower=0", "epochs.experts=0.1", "epochs.joint=0",
)  # fmt: skip


def bundle_without(group: tuple[str, ...], told: list[Told], folder: Path) -> MoPE:
    """A bundle of all chat sources but `group`, in `folder`; trained where it is not there."""
    if not (folder / layout.CONFIG).is_file():
        rest = [e for source, e in told if source not in (*group, "castillo code")]
        kept = without(rest, [e for source, e in told if source in group])
        train(load_recipe("minilm", settings=SETTINGS), LengthData(kept), folder, resume=True)
    return MoPE.from_pretrained(folder, backend="torch", overlay="none")


def judge(bundle: MoPE, examples: list[Example]) -> Interval:
    """Pair order on one source's answers, of served models (and settings) with enough of them."""
    counts = Counter(map(decoding, examples))
    examples = [e for e in examples if counts[decoding(e)] >= LEAST]
    asked = [replace(e.request, id="", model=None, temperature=None, top_p=None) for e in examples]
    different = list(dict.fromkeys(asked))
    said = dict(zip(different, bundle.columns(different)[layout.PROXY].tokens, strict=True))
    models = sorted(counts)
    return order(
        np.log1p([np.median(e.lengths) for e in examples]), np.array([said[request] for request in asked]),
        np.array([models.index(decoding(e)) for e in examples]),
        np.array([e.group for e in examples]),
    )  # fmt: skip


def main() -> None:
    asked = arguments(__doc__)
    found = read(asked.folder)
    told, judged = first(found, MORE), first(found)
    rows = []
    for i, group in enumerate(GROUPS):
        bundle = bundle_without(group, told, asked.work / f"without-{i}")
        for name in group:
            got = judge(bundle, [e for source, e in judged if source == name])
            rows.append({"source": name, "order": plain(got)})
            print(name, rows[-1]["order"], flush=True)
    asked.output.with_suffix(".json").write_text(
        json.dumps({**machine(), "left out together": GROUPS, "sources": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
