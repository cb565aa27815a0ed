"""Price lists: dollars per million tokens of hosted models. A list carries its date, since prices age."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mope.errors import ConfigError, DataError
from mope.mapper.names import close_names, read_shipped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Tokens = TypeVar("Tokens", float, "NDArray[np.float64]")

MILLION = 1e6
MOST = 10_000.0  # dollars per million tokens; the dearest model of 2026 costs 180
OLD_DAYS = 90
FIELDS = ("input", "cached_input", "output", "currency", "source", "date", "vendor")
NEEDED = ("input", "output")
# A day at the end of a name: gpt-4o-2024-08-06, claude-haiku-4-5-20251001.
DAY = re.compile(r"-(\d{4}-\d{2}-\d{2}|20\d{6})$")


@dataclass(frozen=True, slots=True)
class Price:
    """Price of one hosted model per million tokens, as known on `date`.

    `cached_input` is what prompt tokens cost that the provider finds in its cache; None where it gives no discount.
    """

    model: str
    input: float
    output: float
    date: dt.date
    cached_input: float | None = None
    currency: str = "USD"
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("input", "output", "cached_input"):
            value = getattr(self, field)
            if field == "cached_input" and value is None:
                continue
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= MOST:  # False for NaN
                raise _fault(
                    self.model, f"{field} = {value!r}", f"a price from 0 to {MOST:,.0f} per million tokens"
                )

    def cost(
        self, prompt_tokens: Tokens, output_tokens: Tokens, cached_tokens: Tokens | float = 0.0
    ) -> Tokens:
        """Money for a request, or elementwise for arrays of one shape.

        `cached_tokens` counts those of the prompt's tokens that the provider finds in its cache.
        """
        return self.prompt_cost(prompt_tokens, cached_tokens) + self.output_cost(output_tokens)

    def prompt_cost(self, tokens: Tokens, cached_tokens: Tokens | float = 0.0) -> Tokens:
        """Money for the prompt alone."""
        cached = self.input if self.cached_input is None else self.cached_input
        return ((tokens - cached_tokens) * self.input + cached_tokens * cached) / MILLION

    def output_cost(self, tokens: Tokens) -> Tokens:
        """Money for the answer alone."""
        return tokens * self.output / MILLION

    def age_days(self, today: dt.date) -> int:
        """Days since the price was known to hold."""
        return max(0, (today - self.date).days)

    def warning(self, today: dt.date) -> str:
        """What to say of a price older than 90 days; empty for a younger one."""
        age = self.age_days(today)
        where = f" ({self.source})" if self.source else ""
        told = f"the price of {self.model} is of {self.date}, {age} days old: check it{where}"
        return told if age > OLD_DAYS else ""


@dataclass(frozen=True, slots=True)
class PriceList:
    """Prices by model name; `date` is that of the list that ships, `note` says what its prices leave out."""

    date: dt.date
    note: str
    prices: Mapping[str, Price]

    @classmethod
    def load(cls, path: str | Path | None = None) -> PriceList:
        """The newest list that ships; entries of the JSON file at `path` replace and extend it.

        Such a file reads {"date": "2026-11-24", "models": {"my-model": {"input": 0.5, "output": 1.5}}}, in
        dollars per million tokens. Raises `DataError` naming model, field and rule.
        """
        shipped = _read_list(read_shipped(f"prices/{newest()}"), newest())
        if path is None:
            return shipped
        own = _read_list(_read_file(Path(path)), str(path))
        return cls(shipped.date, shipped.note, {**shipped.prices, **own.prices})

    def price(self, model: str) -> Price:
        """The price of a model by name, in any case, with or without a date at its end."""
        listed = {name.lower(): name for name in self.prices}
        asked = model.strip().lower()
        for form in (asked, DAY.sub("", asked), DAY.sub("", asked.rpartition("/")[2])):
            if form in listed:
                return self.prices[listed[form]]
        near = ", ".join(close_names(asked, listed))
        raise ConfigError(
            f"model {model!r} without a price",
            f"one of the {len(listed)} listed, such as {near}",
            'add it in a file of your own: {"date": "2026-11-24", "models": {"NAME": {"input": 1, "output": 2}}}',
        )

    def age_days(self, today: dt.date) -> int:
        """Days since the list that ships was known to hold."""
        return max(0, (today - self.date).days)


def newest() -> str:
    """File name of the newest list that ships: they are named by date."""
    return max(
        item.name for item in files("mope.mapper").joinpath("prices").iterdir() if item.name.endswith(".json")
    )


def _fault(model: str, came: str, expected: str) -> DataError:
    return DataError(f"price of {model!r}: {came}", expected)


def _read_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except OSError as error:
        raise DataError(f"price list {path} ({error.strerror})", "a readable JSON file") from None
    except (ValueError, RecursionError):
        raise DataError(
            f"price list {path}, which is not JSON", "a JSON object with date and models"
        ) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise _fault(key, "given twice", "each model and field once")
        seen[key] = value
    return seen


def _read_list(table: Any, name: str) -> PriceList:
    models = table.get("models") if isinstance(table, Mapping) else None
    if not isinstance(models, Mapping) or not models:
        raise DataError(f"price list {name} without models", "an object `models` of at least one name")
    day, sources = _day(table.get("date"), name), table.get("sources", {})
    currency = table.get("currency", "USD")
    prices = {model: _price(model, entry, day, currency, sources) for model, entry in models.items()}
    return PriceList(day, str(table.get("note", "")), prices)


def _price(model: str, entry: Any, day: dt.date, currency: Any, sources: Any) -> Price:
    if not isinstance(entry, Mapping):
        raise _fault(model, f"{entry!r}", "an object with input and output")
    for field in NEEDED:
        if entry.get(field) is None:
            raise _fault(model, f"no {field}", f"{field}, dollars per million tokens")
    unknown = [field for field in entry if field not in FIELDS]
    if unknown:
        raise _fault(model, f"field {unknown[0]!r}", f"one of {', '.join(FIELDS)}")
    currency = entry.get("currency", currency)
    if not isinstance(currency, str) or not currency:
        raise _fault(model, f"currency = {currency!r}", "a name such as USD")
    vendor = sources.get(entry.get("vendor"), "") if isinstance(sources, Mapping) else ""
    own = _day(entry["date"], f"of {model!r}") if "date" in entry else day
    source = str(entry.get("source") or vendor)
    return Price(model, entry["input"], entry["output"], own, entry.get("cached_input"), currency, source)


def _day(value: Any, name: str) -> dt.date:
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise DataError(f"price list {name}: date = {value!r}", "a day such as 2026-11-24") from None
