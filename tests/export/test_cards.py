"""Cards: up to date, with no number that the facts do not hold, and with metadata that the Hub reads."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from mope.cli import build_app
from mope.errors import ConfigError
from mope.export.card import render, with_energy
from mope.export.card_plot import reliability
from mope.export.cards import Card, read_facts, read_words
from mope.export.words import Words, filled

ROOT = Path(__file__).parents[2]
HOME = ROOT / "model_cards"
NAMES = sorted(path.stem for path in HOME.glob("*.toml"))
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")
# What the sections' own sentences say: levels of intervals, the aim of coverage, the tolerance of a metric, Markdown.
DEFINED = {"95", "80", "78", "82", "100"}


def facts_of(name: str) -> Path:
    return ROOT / "mope/assets/default/facts.json" if name == "shipped" else HOME / "facts" / f"{name}.json"


@pytest.fixture(scope="module")
def script() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "cards.py")))


def test_no_card_is_stale(script: Any):
    cards = script.cards()
    assert set(cards) == set(NAMES) == {"bert-base", "minilm", "minilm-3", "shipped", "tiny"}
    assert {name: card.stale for name, card in cards.items() if card.stale} == {}, (
        "run: python scripts/cards.py"
    )


def test_there_is_a_card_for_every_preset():
    presets = {path.stem for path in (ROOT / "training" / "recipes").glob("*.toml")}
    assert presets <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_card_is_a_fact(name: str):
    facts, words = read_facts(facts_of(name)), read_words(HOME / f"{name}.toml")
    text = (HOME / f"{name}.md").read_text()
    text = text.split("\n---\n", 1)[1]  # metadata: their values are compared below
    for said in sorted((*names_in(facts), *names_in(vars(words))), key=len, reverse=True):
        text = text.replace(said, " ")
    text = re.sub(r"```.*?```|^    .*$|\(.*\.svg\)", " ", text, flags=re.DOTALL | re.MULTILINE)
    known = {form for value in numbers(facts) for form in forms(value)} | DEFINED
    assert [found for found in NUMBER.findall(text) if found.strip("+,") not in known] == []


def names_in(value: Any) -> Iterator[str]:
    """Strings with digits, anywhere below `value`: versions, devices, names of models and columns."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from names_in(key)
            yield from names_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from names_in(inner)
    elif isinstance(value, str) and re.search(r"\d", value):
        yield value


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        if value and all(isinstance(inner, int) for inner in value.values()):
            yield sum(value.values())  # examples and groups of all parts
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def forms(value: float) -> Iterator[str]:
    """How a card may write a fact."""
    for scaled in (value, 100 * value, value / 1e9):
        yield from (f"{scaled:{form}}" for form in (".0f", ",.0f", ".1f", ".2f", ".3f", ".2g", ".2e"))
    yield str(value)


def test_a_changed_fact_makes_a_card_stale(tmp_path: Path):
    facts = tmp_path / "facts.json"
    shutil.copyfile(facts_of("minilm"), facts)
    words = read_words(HOME / "minilm.toml")
    Card.of(facts, words, tmp_path / "README.md").write()
    assert Card.of(facts, words, tmp_path / "README.md").stale == []
    raw = json.loads(facts.read_text())
    raw["evaluation"]["reliability"]["proxy"][3]["observed"]["value"] += 0.1
    facts.write_text(json.dumps(raw))
    assert Card.of(facts, words, tmp_path / "README.md").stale == [tmp_path / "reliability.svg"]
    raw["evaluation"]["columns"][0]["metrics"]["mae"]["value"] += 1
    facts.write_text(json.dumps(raw))
    assert len(Card.of(facts, words, tmp_path / "README.md").stale) == 2


def test_the_energy_is_hours_threads_and_watts():
    facts = {"stages": {"a": {"seconds": 1800}, "b": {"seconds": 5400}}, "threads": 3}
    energy = with_energy(facts)["energy"]
    assert energy["hours"] == 2
    assert energy["kwh"] == pytest.approx(2 * 3 * energy["watts"] / 1000)
    assert with_energy({"recipe": {}}) == {"recipe": {}}


def test_the_hub_reads_the_metrics():
    from huggingface_hub import ModelCard

    facts = read_facts(facts_of("shipped"))
    data = ModelCard.load(HOME / "shipped.md").data
    columns = {column["name"]: column["metrics"] for column in facts["evaluation"]["columns"]}
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found["mae"] == pytest.approx(columns[facts["evaluation"]["default"]]["mae"]["value"], abs=1e-3)
    assert set(found) == {"mae", "acc_100", "tau_b", "order_accuracy"}
    assert (data.library_name, data.license) == ("mope", "apache-2.0")


def test_a_bucket_that_misses_the_aim_is_told():
    facts = read_facts(facts_of("minilm"))
    words = Words()
    assert "aimed at" not in render(facts, words)
    facts["evaluation"]["coverage"][1]["coverage"]["value"] = 0.7
    assert "predicted medium holds 70.0 %" in render(facts, words)


def test_what_is_not_measured_is_left_out():
    card = render({}, Words())
    assert "Nothing was measured" in card
    assert "Evaluation" not in card
    assert not NUMBER.findall(re.sub(r"```.*?```", "", card, flags=re.DOTALL))


def test_words_are_filled_from_facts():
    facts = {"data": {"models": 1234, "names": ["a", "b"]}}
    assert filled("{data.models:,} models, {data.names.1}", facts) == "1,234 models, b"
    with pytest.raises(ConfigError, match=r"data\.rows"):
        filled("{data.rows}", facts)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"intended": "It errs by 144 tokens"}, "'144'"),
        ({"limits": ["GPT-4 only"]}, "'GPT-4'"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_words_with_numbers_or_unknown_keys(words: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Words.of(words)


def test_names_may_have_digits():
    assert Words(limits=["GPT-4 only"], names=["GPT-4"]).limits == ["GPT-4 only"]


def test_the_plot_is_drawn_from_the_facts():
    facts = read_facts(facts_of("minilm"))
    drawn = ElementTree.fromstring(reliability(facts))
    circles = [node for node in drawn.iter() if node.tag.endswith("circle") and node.get("r") == "2.5"]
    assert len(circles) == 2 * len(facts["evaluation"]["reliability"]["proxy"])
    assert all(52 <= float(node.attrib["cy"]) <= 412 for node in circles)


def test_the_command(exported: tuple[Path, Path], tmp_path: Path):
    bundle = Path(shutil.copytree(exported[1], tmp_path / "b"))
    run = CliRunner().invoke
    assert "README.md" in run(build_app(), ["card", str(bundle)]).stdout
    assert "ONNX graphs" in (bundle / "README.md").read_text()
    found = json.loads(run(build_app(), ["card", str(bundle), "--check", "--json"]).stdout)
    assert found["stale"] == []
    (bundle / "README.md").write_text("mine")
    assert run(build_app(), ["card", str(bundle), "--check"]).exit_code == 1
    assert (bundle / "README.md").read_text() == "mine"
    for words in (["card"], ["card", str(tmp_path)], ["card", "--facts", str(tmp_path / "none.json")]):
        assert run(build_app(), words).exception.exit_code == 2  # type: ignore[union-attr]
