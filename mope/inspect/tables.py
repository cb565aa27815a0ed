"""What was found, as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mope.inspect.curve import Curve
from mope.inspect.sample import MOST_A_GROUP
from mope.inspect.tally import LEVELS, Group

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from mope.inspect.run import Inspection

MOST_ROWS = 30
SHOWN = 70  # characters of a prompt


def tables(found: Inspection) -> Iterator[RenderableType]:
    """Everything, in the order it is read in."""
    yield _groups("lengths by source, in tokens", found.tally.merged("source"), 0)
    if len(models := found.tally.merged("model")) > 1:
        yield _groups("lengths by model, in tokens", models, 1)
    yield _piles(found)
    yield _repeats(found)
    yield from _bounds(found)
    if found.floor:
        yield _noise(found.floor)
    yield _curve(found.curve) if isinstance(found.curve, Curve) else f"no learning curve: {found.curve}\n"
    for remark in found.remarks:
        yield f"note: {remark}"


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0], max_width=60, no_wrap=True)
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _groups(title: str, groups: dict[tuple[str, str], Group], place: int) -> Table:
    name = ("source", "model")[place]
    table = _table(
        title, name, "examples", "answers", *(f"p{n}" for n in LEVELS), "max", "limit known", "reached"
    )
    ordered = sorted(groups.items(), key=lambda item: -item[1].answers)
    for key, group in ordered[:MOST_ROWS]:
        row: dict[str, Any] = group.row()
        known, capped = (f"{row[share]:.1%}" if group.bounded else "-" for share in ("limit_known", "capped"))
        table.add_row(
            _shown(key[place]) or "(unnamed)", f"{row['examples']:,}", f"{row['answers']:,}",
            *(f"{row[f'p{n}']:,.0f}" for n in LEVELS), f"{row['max']:,}", known, capped,
        )  # fmt: skip
    if len(ordered) > MOST_ROWS:
        table.add_row(f"and {len(ordered) - MOST_ROWS:,} more (--json has all)")
    return table


def _piles(found: Inspection) -> RenderableType:
    piles = found.tally.piles()
    if not piles:
        return "no length at which answers pile up\n"
    table = _table(
        "lengths at which answers pile up", "source", "model", "length", "answers", "expected", "round"
    )
    for pile in piles[:10]:
        table.add_row(
            _shown(pile.source), _shown(pile.model), f"{pile.length:,}", f"{pile.answers:,}", f"{pile.expected:.1f}",
            "yes" if pile.round else "",
        )  # fmt: skip
    if len(piles) > 10:
        table.add_row(f"and {len(piles) - 10:,} more")
    return table


def _repeats(found: Inspection) -> Table:
    table = _table("repeated prompts", "", "prompts", "rows repeated", "in test", "of them in train", "share")
    for name, seen in (("to the letter", found.repeats.exact), ("normalised", found.repeats.normalised)):
        row = seen.row()
        share = row["test_prompts_in_train"] / row["test_prompts"] if row["test_prompts"] else 0.0
        table.add_row(name, *(f"{value:,}" for value in row.values()), f"{share:.1%}")
    for prompt in found.repeats.leaked.values():
        table.add_row(f"in both: {_shown(prompt)}")
    return table


def _bounds(found: Inspection) -> Iterator[RenderableType]:
    if found.usual_fails:
        yield f"the usual percentiles 33, 66, 99 do not do: {found.usual_fails}"
    if found.bounds is None:
        yield "no percentiles part these lengths into three buckets\n"
        return
    bounds = found.bounds
    levels = ", ".join(f"{level:g}" for level in bounds.percentiles)
    yield (
        f"bounds at percentiles {levels}: short up to {bounds.short:,.0f}, medium up to {bounds.medium:,.0f}, "
        f"training targets cut at {bounds.cap:,.0f} tokens\n"
    )


def _noise(floor: dict[str, Any]) -> Table:
    table = _table("noise floor, MAE in tokens", "", "value", "95 % interval")
    for name, key in (("the other answers' median", "floor"), ("each model's median", "constant")):
        cell = floor[key]
        table.add_row(name, f"{cell['value']:.1f}", f"{cell['low']:.1f} to {cell['high']:.1f}")
    table.add_row(f"{floor['examples']:,} prompts, explainable", f"{floor['explainable']:.1%}")
    return table


def _curve(curve: Curve) -> Table:
    table = _table("learning curve of boosted trees", "training examples", "MAE, tokens", "95 % interval")
    for size, told in zip(curve.sizes, curve.errors, strict=True):
        table.add_row(f"{size:,}", f"{told['value']:.1f}", f"{told['low']:.1f} to {told['high']:.1f}")
    for size, told in curve.ahead.items():
        name = f"{size:,} expected" + (", what is at hand" if size == curve.at_hand else "")
        table.add_row(name, f"{told['value']:.1f}", f"{told['low']:.1f} to {told['high']:.1f}")
    gain = curve.doubling
    table.add_row(
        "twice the data would save", f"{gain['value']:.1f}", f"{gain['low']:.1f} to {gain['high']:.1f}"
    )
    table.add_row(f"judged on {curve.judged:,} examples, at most {MOST_A_GROUP} a group")
    return table


def _shown(text: str) -> str:
    line = " ".join(text[: 4 * SHOWN].split())[:SHOWN]
    return "".join(char if char.isprintable() else "\ufffd" for char in line)
