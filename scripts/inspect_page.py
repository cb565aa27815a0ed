"""docs/inspect.md: what `mope inspect` says of every source in a folder, as a table, and of two in full.

    python scripts/inspect_page.py shared/data/prompts --full castillo --full alpaca_eval --output docs/inspect

Writes OUTPUT.md and OUTPUT.json (the numbers of the table; the full JSON of `mope inspect --json` is not kept).
"""

from __future__ import annotations

import argparse
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from mope import __version__
from mope.data.load import iter_examples
from mope.files import write_text
from mope.inspect.run import SAMPLE, Inspection, inspect_data
from mope.inspect.tables import tables
from mope.machine import machine

HEAD = """# What data is good for

`mope inspect DATA...` reads what `mope train` reads, once, and says what one would want to know before training:

- **lengths** by source and by model, and the share of answers that reached their limit: `cap` or `max_tokens` where
  the rows tell one, or `finish_reason` "length". Where no limit is told, pile-ups at single lengths give it away.
- **repeated prompts**, to the letter and with case, space and punctuation taken away, and how many prompts of mope's
  test part also stand in its train part. The same words after another prompt are another prompt.
- **bounds**: the usual percentiles 33, 66, 99 where all three buckets are filled, else the cut that parts the answers
  most evenly.
- **noise floor** where prompts were answered several times: the error of the median of the same prompt's other
  answers, which no forecast can be expected to beat, beside the error of each model's median. Other
  sampling settings make another example.
- **learning curve**: the error of boosted trees on cheap features at 1/16, 1/8, 1/4, 1/2 and all of the train
  part of at most {sample:,} examples, 16 a prompt or conversation, judged on the validation and calibration
  parts (the test part stays unseen), and a power law `floor + scale * n ** -power` through the five: what is
  expected at all the data there is, at 2, 4 and 10 times as much, and what twice the data would save. An
  encoder learns more slowly and goes further: the curve says whether more data is worth having, not how good a
  bundle will be.

`--json` prints everything as one document, `--plot FILE` draws lengths and curve, `--no-curve` goes without
scikit-learn. Intervals are 95 %, from a bootstrap over conversations; they do not hold the error of the law's shape.
Files are read as a stream; memory grows with distinct prompts (about 500 bytes each), with answers of prompts
answered several times (4 bytes each), and with the sample.

"""
FOOT = """Made by `python scripts/inspect_page.py DATA/prompts {full} --output docs/inspect`,
seed 0, mope {version}, on {machine}, Python {python}, numpy {numpy}.
"""
COLUMNS = (
    "source", "examples", "answers", "models", "p50", "p99", "reached limit", "test prompts in train", "noise floor",
    "explainable", "MAE at hand", "twice the data saves",
)  # fmt: skip


def row(name: str, told: dict[str, Any]) -> list[str]:
    """One source in the table."""
    everything, noise, curve = told["all"], told["noise"], told["curve"]
    capped = f"{everything['capped']:.1%}" if everything["limit_known"] else "not told"
    models = len({group["model"] for group in told["groups"]})
    seen = told["normalised"]
    ahead = curve.get("ahead", {}).get(curve.get("at_hand"))
    return [
        name, f"{everything['examples']:,}", f"{everything['answers']:,}",
        str(models), f"{everything['p50']:,.0f}", f"{everything['p99']:,.0f}",
        capped, f"{seen['test_prompts_in_train']:,} of {seen['test_prompts']:,}",
        _cell(noise["floor"]) if noise else "", f"{noise['explainable']:.1%}" if noise else "",
        _cell(ahead) if ahead else curve["none_because"], _cell(curve["doubling"]) if ahead else "",
    ]  # fmt: skip


def _cell(told: dict[str, float]) -> str:
    return f"{told['value']:.1f} [{told['low']:.1f}, {told['high']:.1f}]"


def shown(found: Inspection) -> str:
    """The tables as the command prints them into a pipe."""
    console = Console(width=140, file=io.StringIO(), color_system=None)
    for item in tables(found):
        console.print(item, markup=False)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def sources(folder: Path) -> dict[str, Path]:
    """Tables of a folder by name; of a pair the prompts stand for both."""
    return {
        path.stem.removesuffix("_prompts"): path
        for path in sorted(folder.glob("*.parquet"))
        if not path.stem.endswith("_lengths")
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, inspect, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--full", action="append", default=[], help="a source whose tables are shown")
    parser.add_argument("--output", type=Path, required=True, help="path without suffix")
    asked = parser.parse_args(argv)
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    full, kept = [], {}
    for name, path in sources(asked.folder).items():
        found = inspect_data(iter_examples([path], refused=Counter()))
        told = found.to_dict()
        lines.append(f"| {' | '.join(row(name, told))} |")
        kept[name] = {
            key: told[key] for key in ("all", "parts", "exact", "normalised", "bounds", "noise", "curve")
        }
        if name in asked.full:
            full.append(f"## {name}\n\n```\n$ mope inspect {path.name}\n{shown(found)}\n```\n")
        print(lines[-1], flush=True)
    where = machine()
    foot = FOOT.format(full=" ".join(f"--full {name}" for name in asked.full), version=__version__, **where)
    head = HEAD.format(sample=SAMPLE)
    page = [head, "## Every source\n\nTokens.\n", "\n".join(lines) + "\n", foot, *full]
    write_text(asked.output.with_suffix(".md"), "\n".join(page).rstrip() + "\n")
    document = {"mope": __version__, **where, "seed": 0, "sources": kept}
    write_text(asked.output.with_suffix(".json"), json.dumps(document, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
