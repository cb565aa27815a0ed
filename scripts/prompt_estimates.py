"""How far `mope.chat.estimate_tokens` is off for whole files of prompts, by the tokenizers that their columns name.

    python scripts/prompt_estimates.py FILE.parquet ...

Each file has a column `prompt` and columns `prompt_tokens_NAME`; files without them are passed over. Prints true
over estimated tokens of each file, and the spread of the logarithm of these ratios (`mope.cost.PROMPT_ERROR`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mope.chat import estimate_tokens

ROWS = 20_000
COLUMN = "prompt_tokens_"


def ratios(path: Path) -> Iterator[tuple[str, float]]:
    """Tokenizer and true over estimated tokens of the first rows of a file."""
    names = [name for name in pq.read_schema(path).names if name.startswith(COLUMN)]
    if not names:
        return
    table = pq.read_table(path, columns=["prompt", *names]).slice(0, ROWS)
    estimated = sum(estimate_tokens(text or "") for text in table["prompt"].to_pylist())
    for name in names:
        yield name.removeprefix(COLUMN), sum(size or 0 for size in table[name].to_pylist()) / estimated


def main() -> None:
    """One line a file and tokenizer, then what they say together."""
    found = []
    print("| prompts | tokenizer | true / estimated |\n|---|---|---|")
    for path in map(Path, sys.argv[1:]):
        for tokenizer, ratio in ratios(path):
            found.append(np.log(ratio))
            print(f"| {path.stem} | {tokenizer} | {ratio:.3f} |")
    print(
        f"\n{len(found)} ratios; their logarithm: mean {np.mean(found):.3f}, spread {np.std(found, ddof=1):.3f}"
    )


if __name__ == "__main__":
    main()
