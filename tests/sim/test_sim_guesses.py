"""Predictors made of a confusion matrix or of a table; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mope.errors import BadInput, ConfigError, DataError
from mope.sim.guesses import LEVELS, make_guess, used_file
from mope.sim.run import RunConfig, fingerprint
from mope.sim.scenario import load_scenario
from mope.sim.sequence import Arrival, Sequence

MATRIX: dict[str, Any] = {"bounds": [10, 100], "confusion": [[1, 0, 0], [0, 3, 1], [0, 0, 2]]}


def seq(output: int, number: int = 1) -> Sequence:
    return Sequence(number, Arrival(0.0, "a", 5, output))


def write(path: Path, value: object) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def said(word: str, outputs: list[int], seed: int = 0) -> list[float]:
    guess = make_guess(word, seed)
    assert guess is not None
    return [guess(seq(output)).tokens for output in outputs]


def test_a_matrix_takes_classes_for_each_other_as_often_as_it_says(tmp_path: Path) -> None:
    usual = {"tokens": [5, 50, 400], "low": [2, 20, 150], "high": [9, 90, 900]}
    word = f"confusion:{write(tmp_path / 'm.json', {**MATRIX, **usual})}"
    assert said(word, [10, 101]) == [5.0, 400.0]  # a bound belongs to the class below it
    middle = said(word, [11] * 4000)
    assert set(middle) == {50.0, 400.0}
    assert middle.count(400.0) / 4000 == pytest.approx(0.25, abs=0.03)
    guess = make_guess(word, 0)
    assert guess is not None
    found = guess(seq(3))
    assert (found.low, found.high, found.quantiles) == (2.0, 9.0, (2.0, 5.0, 9.0))


def test_without_usual_lengths_a_class_stands_for_its_middle(tmp_path: Path) -> None:
    word = f"confusion:{write(tmp_path / 'm.json', MATRIX)}"
    assert said(word, [3, 300]) == pytest.approx([np.sqrt(10), np.sqrt(100 * 200)])


def test_the_facts_of_a_bundle_are_read(tmp_path: Path) -> None:
    evaluation = {"default": "x", "buckets": {"x": {"confusion": MATRIX["confusion"]}}}
    facts = {"bounds": {"short": 10.0, "medium": 100.0, "cap": 900.0}, "evaluation": evaluation}
    word = f"confusion:{write(tmp_path / 'facts.json', facts)}"
    assert said(word, [3, 300]) == pytest.approx([np.sqrt(10), np.sqrt(100 * 900)])


def test_the_matrix_that_ships_errs_as_its_source_does() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 512, 4000).tolist()
    errors = np.abs(np.array(said("confusion:bert-lmsys", lengths)) - lengths)
    assert 50 < errors.mean() < 150
    assert used_file("confusion:bert-lmsys").is_file()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [
        "nothing",
        [1],
        {"bounds": [10]},
        {"bounds": [10, 100], "confusion": [[1, 0], [0, 1]]},
        {"bounds": [100, 10], "confusion": MATRIX["confusion"]},
        {"bounds": [10, 100], "confusion": [[1, 0, 0], [0, 0, 0], [0, 0, 1]]},
        {"bounds": [10, 100], "confusion": [[1, 0, 0], [0, -1, 3], [0, 0, 1]]},
        {"bounds": [10, 100], "confusion": [[1, 0, 0], [0, 1], [0, 0, 1]]},
        {"bounds": [10, "x"], "confusion": MATRIX["confusion"]},
        {**MATRIX, "tokens": [1, 2], "low": [1, 2], "high": [1, 2]},
        {**MATRIX, "tokens": [0, 2, 3], "low": [1, 2, 3], "high": [1, 2, 3]},
    ],
)
def test_a_matrix_that_makes_no_sense_is_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(DataError, match=r"m\.json"):
        make_guess(f"confusion:{write(tmp_path / 'm.json', value)}", 0)
    with pytest.raises(DataError):
        make_guess(f"confusion:{tmp_path / 'gone.json'}", 0)


def test_a_table_says_its_rows_and_no_more(tmp_path: Path) -> None:
    text = "tokens,low,high,0.1,0.5,0.9\n7,2,20,2,7,20\n9,3,30,3,9,30\n"
    guess = make_guess(f"table:{write(tmp_path / 't.csv', text)}", 0)
    assert guess is not None
    found = guess(seq(1000, 2))
    assert (found.tokens, found.low, found.high) == (9.0, 3.0, 30.0)
    assert (found.levels, found.quantiles) == ((0.1, 0.5, 0.9), (3.0, 9.0, 30.0))
    with pytest.raises(DataError, match="one for request 3"):
        guess(seq(5, 3))


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "tokens,low,high\n1,2\n", "tokens,low,high\n1,2,x\n"])
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"t\.csv"):
        make_guess(f"table:{write(tmp_path / 't.csv', text)}", 0)


@pytest.mark.parametrize("word", ["confusion", "table", "noise:", "table:", "exact:1", "guess:3"])
def test_words_that_are_not_whole_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="confusion:FILE"):
        make_guess(word, 0)


def test_a_policy_that_is_an_oracle_still_needs_a_word_that_can_be_read() -> None:
    guess = make_guess("noise:80", 0, truth=True)
    assert guess is not None
    assert guess(seq(123)).tokens == 123.0
    with pytest.raises(BadInput):
        make_guess("confusion:nowhere.json", 0, truth=True)


def test_noise_has_the_quantiles_it_says() -> None:
    guess = make_guess("noise:100", 1)
    assert guess is not None
    found = [guess(seq(3000)) for _ in range(6000)]
    for place, level in enumerate(LEVELS):
        below = np.mean([one.quantiles[place] >= 3000 for one in found])
        assert below == pytest.approx(level, abs=0.02)


def test_another_file_is_another_run(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    config = RunConfig("vtc", f"confusion:{write(path, MATRIX)}")
    scenario = load_scenario("vtc/overload")
    before = fingerprint(scenario, config)
    assert fingerprint(scenario, config) == before
    write(path, {**MATRIX, "bounds": [10, 90]})
    assert fingerprint(scenario, config) != before
    assert config.name == "vtc~confusion_m.json~s0"
