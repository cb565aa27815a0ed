"""Sampling settings as inputs: read from rows, told apart, missing as missing, read where they were learned."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mope.data.load import read_examples
from mope.data.records import Example, LengthData
from mope.data.synthetic import synthetic
from mope.predictor.bundle import MoPE
from mope.predictor.features import ALL, NAMES, matrix, with_sampling
from mope.training.prepare import prepare
from mope.training.recipe import load_recipe
from mope.types import Request


def test_settings_stand_behind_the_features():
    requests = [Request("a", temperature=0.0), Request("b", top_p=0.9), Request("c")]
    rows = with_sampling(matrix(requests), requests)
    assert rows.shape == (3, len(ALL))
    assert rows[:, : len(NAMES)] == pytest.approx(matrix(requests), nan_ok=True)
    behind = rows[:, len(NAMES) :]
    assert np.isnan(behind).tolist() == [[False, True], [True, False], [True, True]]
    assert (behind[0, 0], behind[1, 1]) == (0.0, np.float32(0.9))
    assert with_sampling(matrix([]), []).shape == (0, len(ALL))


def test_settings_are_read_and_keep_samples_apart(tmp_path: Path):
    (tmp_path / "c_prompts.jsonl").write_text(json.dumps({"prompt_id": "a", "prompt": "Alpha?"}) + "\n")
    rows = [{"prompt_id": "a", "model": "m", "response_tokens": n, "temperature": t, "top_p": 0.9}
            for n, t in ((1, 0.5), (2, 0.5), (3, 1))]  # fmt: skip
    path = tmp_path / "c_lengths.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_examples([path])
    found = [(e.lengths, e.request.temperature, e.request.top_p) for e in data.examples]
    assert found == [((1, 2), 0.5, 0.9), ((3,), 1.0, 0.9)]
    path.write_text(json.dumps({**rows[0], "temperature": "hot"}) + "\n" + json.dumps(rows[1]) + "\n")
    assert dict(read_examples([path]).refused) == {"temperature is not a number": 1}


def warm(rows: int) -> LengthData:
    return LengthData([
        Example(replace(e.request, temperature=float(i % 2)), e.lengths, e.group)
        for i, e in enumerate(synthetic(rows).examples)
    ])  # fmt: skip


def test_only_data_that_tells_them_is_trained_on_them(quick: tuple[str, ...]):
    def width(data: LengthData, *settings: str) -> int:
        ready = prepare(load_recipe("tiny", settings=[*quick, *settings]), data)
        assert ready.parts["train"].inputs.features.shape[1] == len(ready.config.features)
        return len(ready.config.features)

    assert width(warm(200)) == len(ALL)
    assert width(warm(200), "sampling=false") == len(NAMES)
    assert width(synthetic(200)) == len(NAMES)


def test_the_order_of_data_without_settings_is_what_it_was():
    example = synthetic(1).examples[0]
    plain, same = LengthData([example]), LengthData([replace(example)])
    hot = LengthData([replace(example, request=replace(example.request, temperature=1.0))])
    assert plain.digest() == same.digest() != hot.digest()


def test_a_bundle_that_did_not_learn_them_does_not_read_them(tiny: Path):
    bundle, requests = MoPE.from_pretrained(tiny), synthetic(5).requests
    assert bundle.config.features == NAMES
    hot = [replace(request, temperature=2.0) for request in requests]
    assert [f.tokens for f in bundle.predict(hot)] == [f.tokens for f in bundle.predict(requests)]


def test_the_temperature_is_learned(tmp_path: Path):
    """Answers at temperature 1 are ten times as long."""
    from mope.training.train import train

    rows = [
        Example(replace(e.request, temperature=heat), (max(1, e.lengths[0] * times),), e.group)
        for e in synthetic(300).examples
        for heat, times in ((0.0, 1), (1.0, 10))
    ]
    settings = ["epochs.joint=0", "epochs.proxy_tower=0", "router=lexical", "epochs.proxy=4"]
    folder = train(load_recipe("tiny", settings=settings), LengthData(rows), tmp_path / "b")
    cold, hot, untold = (
        MoPE.from_pretrained(folder)
        .columns([Request("Explain the weather", temperature=heat) for heat in (0.0, 1.0, None)])["proxy"]
        .tokens
    )
    assert hot > 1.4 * cold
    assert untold > 0
