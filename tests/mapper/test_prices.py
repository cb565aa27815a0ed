"""Price lists: what a request costs, whose price it is, how old it is, and which files are refused."""

from __future__ import annotations

import json
import math
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.errors import ConfigError, DataError
from mope.mapper.prices import OLD_DAYS, Price, PriceList, newest

DAY = date(2026, 8, 1)
PRICE = Price("m", input=2.0, output=8.0, date=DAY, cached_input=0.5)
tokens = st.integers(0, 10**7).map(float)


def write(folder: Path, models: Any, **rest: Any) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps({"date": "2026-11-01", "models": models, **rest}))
    return path


def test_a_request_costs_what_a_person_would_work_out() -> None:
    # 600,000 fresh at $2, 400,000 cached at $0.50, 100,000 out at $8, per million
    assert PRICE.cost(1_000_000.0, 100_000.0, 400_000.0) == pytest.approx(1.2 + 0.2 + 0.8)
    assert PRICE.cost(1_000_000.0, 100_000.0) == pytest.approx(2.8)
    without = Price("m", input=2.0, output=8.0, date=DAY)
    assert without.cost(1e6, 0.0, 1e6) == pytest.approx(2.0)  # no discount known: charged as input


def test_arrays_cost_elementwise() -> None:
    prompt, output = np.array([1e6, 0.0, 5e5]), np.array([0.0, 1e6, 1e5])
    assert PRICE.cost(prompt, output) == pytest.approx([2.0, 8.0, 1.8])
    assert PRICE.cost(prompt, output, prompt) == pytest.approx([0.5, 8.0, 1.05])


@given(tokens, tokens, tokens)
def test_more_tokens_never_cost_less(prompt: float, output: float, more: float) -> None:
    assert PRICE.cost(prompt + more, output + more) >= PRICE.cost(prompt, output) >= 0
    assert PRICE.cost(prompt, output, prompt) <= PRICE.cost(prompt, output)


def test_every_shipped_price_is_plausible() -> None:
    shipped = PriceList.load()
    assert len(shipped.prices) > 100
    assert newest() == f"{shipped.date}.json"
    for name, price in shipped.prices.items():
        assert price.model == name
        assert price.source.startswith("https://"), name
        assert 1 <= price.output / price.input < 15, name
        assert price.cached_input is None or price.cached_input < price.input, name
        assert shipped.price(name.upper()) == price


def test_known_prices_of_widely_used_models() -> None:
    shipped = PriceList.load()
    told = {
        name: shipped.price(name)
        for name in ("gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "mistral-large-3")
    }
    assert {name: (p.input, p.cached_input, p.output) for name, p in told.items()} == {
        "gpt-4o": (2.5, 1.25, 10.0),
        "claude-sonnet-4-5": (3.0, 0.3, 15.0),
        "gemini-2.5-pro": (1.25, 0.125, 10.0),
        "mistral-large-3": (0.5, None, 1.5),
    }


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("GPT-4o", "gpt-4o"),
        ("openai/gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("anthropic/claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-opus-4-20250514", "claude-opus-4-20250514"),
        ("groq/gpt-oss-20b", "groq/gpt-oss-20b"),
    ],
)
def test_names_with_provider_and_day(asked: str, name: str) -> None:
    assert PriceList.load().price(asked).model == name


def test_an_unknown_model_lists_those_near_it_and_how_to_add_one() -> None:
    with pytest.raises(ConfigError, match=r"'gpt-4p'.*gpt-4.*\"models\"") as caught:
        PriceList.load().price("gpt-4p")
    assert caught.value.exit_code == 2


def test_a_file_of_the_user_replaces_and_extends(tmp_path: Path) -> None:
    path = write(
        tmp_path, {"gpt-4o": {"input": 1, "output": 4}, "own": {"input": 0, "output": 0.5, "currency": "EUR"}}
    )
    prices, shipped = PriceList.load(path), PriceList.load()
    assert prices.price("gpt-4o") == Price("gpt-4o", 1, 4, date(2026, 11, 1))
    assert (prices.price("own").currency, prices.price("own").input) == ("EUR", 0)
    assert len(prices.prices) == len(shipped.prices) + 1
    assert prices.date == shipped.date


def test_an_old_price_is_told() -> None:
    assert PRICE.warning(DAY + timedelta(OLD_DAYS)) == ""
    assert "2026-08-01, 91 days old" in PRICE.warning(DAY + timedelta(OLD_DAYS + 1))
    assert PRICE.age_days(DAY - timedelta(3)) == 0
    shipped = PriceList.load()
    assert shipped.age_days(shipped.date + timedelta(7)) == 7


@pytest.mark.parametrize("field", ["input", "output", "cached_input"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, 10_001, "3", True, [1]])
def test_an_absurd_price_names_model_field_and_rule(tmp_path: Path, field: str, value: Any) -> None:
    path = write(tmp_path, {"bad-model": {"input": 1, "output": 2, field: value}})
    with pytest.raises(DataError, match=rf"'bad-model': {field} = .*from 0 to 10,000") as caught:
        PriceList.load(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("models", "rest", "message"),
    [
        ({"m": {"input": 1}}, {}, r"'m': no output"),
        ({"m": {"output": 1}}, {}, r"'m': no input"),
        ({"m": 3}, {}, r"'m': 3.*object"),
        ({"m": {"input": 1, "output": 1, "inptu": 1}}, {}, r"'m': field 'inptu'.*cached_input"),
        ({"m": {"input": 1, "output": 1, "currency": 5}}, {}, "currency = 5"),
        ({"m": {"input": 1, "output": 1, "date": "soon"}}, {}, r"of 'm': date = 'soon'"),
        ({}, {}, "without models"),
        ([], {}, "without models"),
        ({"m": {"input": 1, "output": 1}}, {"date": None}, "date = None"),
    ],
)
def test_a_file_that_is_not_a_price_list(
    tmp_path: Path, models: Any, rest: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        PriceList.load(write(tmp_path, models, **rest))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        PriceList.load(tmp_path / "none.json")
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        PriceList.load(path)
    path.write_text(
        '{"date": "2026-11-01", "models": {"m": {"input": 1, "output": 1}, "m": {"input": 2, "output": 2}}}'
    )
    with pytest.raises(DataError, match="'m': given twice"):
        PriceList.load(path)
