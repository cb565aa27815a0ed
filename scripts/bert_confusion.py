"""`mope/sim/scenarios/bert-lmsys.json`: how a fine-tuned BERT takes classes of lengths for each other.

    python scripts/bert_confusion.py lmsys1m_bert_length_predictions.csv.gz

The table holds true output tokens of vicuna-13b on LMSYS-Chat-1M and the class predicted for each prompt, from
James-QiuHaoran/LLM-serving-with-proxy-models (model-serving/prediction/final/, 4b866866a3, Apache-2.0). Class
bounds are that repository's, for first rounds. `tokens`, `low`, `high`: median, 10 and 90 % by predicted class.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from pathlib import Path

import numpy as np

BOUNDS = (42, 141, 294, 503)
TARGET = Path(__file__).parents[1] / "mope" / "sim" / "scenarios" / "bert-lmsys.json"
ORIGIN = "James-QiuHaoran/LLM-serving-with-proxy-models 4b866866a3, Apache-2.0: five classes of a BERT, LMSYS-Chat-1M"


def main(path: str) -> None:
    """Read the table, write the file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        pairs = [(int(row["output_tokens"]), int(row["pred_5class"])) for row in csv.DictReader(file)]
    truth, said = np.array(pairs).T
    classes = np.searchsorted(BOUNDS, truth, "left")
    matrix = np.zeros((len(BOUNDS) + 1,) * 2, int)
    np.add.at(matrix, (classes, said), 1)
    points = [np.percentile(truth[said == k], (50, 10, 90)).tolist() for k in range(len(matrix))]
    tokens, low, high = zip(*points, strict=True)
    found = {
        "origin": ORIGIN,
        "bounds": BOUNDS,
        "confusion": matrix.tolist(),
        "tokens": tokens,
        "low": low,
        "high": high,
    }
    TARGET.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    guesses = np.array(tokens)[said]
    print(f"{len(truth):,} requests, MAE {np.abs(guesses - truth).mean():.1f} tokens")


if __name__ == "__main__":
    main(sys.argv[1])
