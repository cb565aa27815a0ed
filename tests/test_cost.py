"""The cost of a file: exact sums for certain lengths, whose sizes are estimates, which requests belong together."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest

from mope.cost import PROMPT_ERROR, Bill, FileCost, Plan, conversations, file_cost, prompt_sizes
from mope.errors import ConfigError
from mope.mapper.prices import Price
from mope.totals import Shared
from mope.types import Forecast, History, LengthForecast, Request

DAY = date(2026, 8, 1)
PRICE = Price("m", input=2.0, output=10.0, date=DAY, cached_input=0.5)
CERTAIN = Forecast.of_tokens(1000.0).length
WIDE = Forecast.of_tokens(1000.0, 250.0, 4000.0).length


def bill(found: FileCost) -> Bill:
    assert found.bill is not None
    return found.bill


def cost(lengths: list[LengthForecast], tokens: int | None = 500, plan: Plan | None = None) -> FileCost:
    requests = [Request(f"prompt {place}", prompt_tokens=tokens) for place in range(len(lengths))]
    return file_cost(requests, lengths, PRICE, plan=plan, today=DAY)


def test_certain_requests_cost_exactly_their_sum() -> None:
    found = cost([CERTAIN] * 20)
    assert found.prompt_tokens == pytest.approx((10_000,) * 3)
    assert found.output_tokens == pytest.approx((20_000,) * 3)
    assert bill(found).prompt == pytest.approx((0.02,) * 3)
    assert bill(found).output == pytest.approx((0.2,) * 3)
    assert bill(found).total == pytest.approx((0.22,) * 3)
    assert (found.requests, found.conversations, found.estimated) == (20, 20, 0)
    assert (bill(found).warning, found.busy) == ("", None)


def test_errors_cancel_but_not_those_of_the_whole_file() -> None:
    def width(count: int, plan: Plan) -> float:
        total = bill(cost([WIDE] * count, plan=plan)).total
        return (total.high - total.low) / total.value

    alone, shared = Plan(shared=Shared(0.0, 0.0)), Plan(shared=Shared(0.02, 0.0))
    assert width(400, alone) == pytest.approx(width(100, alone) / 2, rel=0.15)
    assert width(400, shared) > 1.5 * width(400, alone)
    assert width(1, alone) == pytest.approx(width(1, shared), rel=0.1)


def test_the_median_of_a_total_is_above_the_sum_of_medians() -> None:
    assert cost([WIDE] * 200).output_tokens.low > 200 * 1000


def test_cached_prompts_cost_less() -> None:
    assert bill(cost([CERTAIN] * 4, plan=Plan(cached=0.5))).prompt.value == pytest.approx(2000 * 1.25 / 1e6)


def test_estimated_prompts_are_uncertain_together() -> None:
    found = cost([CERTAIN] * 50, tokens=None, plan=Plan(draws=20_000))
    assert found.estimated == 50
    ratio = np.log(found.prompt_tokens.high / found.prompt_tokens.low)
    assert ratio == pytest.approx(2 * 1.2816 * PROMPT_ERROR, rel=0.05)
    assert found.prompt_tokens.value == pytest.approx(50 * 2, rel=0.1)


def test_sizes_counted_told_and_estimated() -> None:
    chat = Request("12345678", history=History(tokens=100))
    sizes, guessed = prompt_sizes(
        [chat, Request("x", prompt_tokens=7), Request("x", prompt_tokens=7)], [None, None, 9]
    )
    assert sizes.tolist() == [102, 7, 9]
    assert guessed.tolist() == [True, False, False]


def test_requests_of_one_conversation_are_found() -> None:
    turns = [
        Request("hello"),
        Request("and then?", history=History(prompts=("hello",))),
        Request("other"),
        Request("more", history=History(prompts=("hello", "and then?"))),
    ]
    assert conversations(turns).tolist() == [0, 0, 1, 0]
    assert conversations(turns, ["a", "b", "a", None]).tolist() == [0, 1, 0, 2]
    assert conversations(turns[:2], ["hello", None]).tolist() == [0, 1]  # a label is no prompt


def test_a_price_that_is_old_is_told_and_everything_is_json() -> None:
    found = file_cost([Request("x")], [WIDE], PRICE, today=DAY + timedelta(100))
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert "100 days old" in document["bill"]["warning"]
    assert document["bill"]["price"]["date"] == "2026-08-01"
    assert set(document["bill"]["total"]) == {"value", "low", "high"}
    assert document["hardware"] is None
    assert document["plan"]["draws"] == 2000


@pytest.mark.parametrize("wrong", [{"draws": 99}, {"seed": -1}, {"cached": 1.1}, {"cached": float("nan")}])
def test_a_plan_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="100 to 100,000 draws"):
        Plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("price", [-1.0, 1001.0, float("nan")])
def test_a_gpu_at_an_absurd_price_is_refused(price: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1,000"):
        Plan(usd_per_gpu_hour=price)


def test_no_request_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one prompt"):
        file_cost([], [], PRICE, today=DAY)
