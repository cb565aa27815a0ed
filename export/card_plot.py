"""The calibration plot of a card, as SVG written by hand: the same bytes from the same facts everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SIDE, EDGE = 360, 52  # pixels of the square and of what is around it
BLUE, ORANGE, INK, GRID = "#0072b2", "#d55e00", "#333333", "#e6e6e6"


def reliability(facts: Mapping[str, Any]) -> str:
    """Share of answers at or below each forecast quantile against the level it was meant for, with 95 % intervals."""
    found = facts["evaluation"]
    lines = {found["default"]: BLUE, "proxy": ORANGE}
    size = SIDE + 2 * EDGE
    body = [*_frame()]
    for place, (name, colour) in enumerate(lines.items()):
        rows = found["reliability"].get(name, [])
        body += [*_line(rows, colour), *_label(name, colour, place)] if rows else []
    fonts = 'font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size}" height="{size}" {fonts}>'
    return "\n".join([head, f'<rect width="{size}" height="{size}" fill="white"/>', *body, "</svg>"]) + "\n"


def _x(share: float) -> str:
    return f"{EDGE + SIDE * share:.1f}"


def _y(share: float) -> str:
    return f"{EDGE + SIDE * (1 - share):.1f}"


def _frame() -> Iterator[str]:
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        yield f'<path d="M{_x(tick)} {_y(0)}V{_y(1)}M{_x(0)} {_y(tick)}H{_x(1)}" stroke="{GRID}"/>'
        yield f'<text x="{_x(tick)}" y="{float(_y(0)) + 18:.1f}" text-anchor="middle" fill="{INK}">{tick:.1f}</text>'
        yield f'<text x="{EDGE - 8}" y="{float(_y(tick)) + 4:.1f}" text-anchor="end" fill="{INK}">{tick:.1f}</text>'
    yield f'<path d="M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}" stroke="{INK}" fill="none"/>'
    yield (
        f'<text x="{_x(0.5)}" y="{float(_y(0)) + 40:.1f}" text-anchor="middle" fill="{INK}">'
        "level of the forecast quantile</text>"
    )
    middle = _y(0.5)
    yield (
        f'<text x="14" y="{middle}" text-anchor="middle" fill="{INK}" transform="rotate(-90 14 {middle})">'
        "share of answers at or below it</text>"
    )


def _line(rows: list[dict[str, Any]], colour: str) -> Iterator[str]:
    points = [(row["level"], row["observed"]) for row in rows]
    path = "L".join(f"{_x(level)} {_y(seen['value'])}" for level, seen in points)
    yield f'<path d="M{path}" stroke="{colour}" stroke-width="1.5" fill="none"/>'
    for level, seen in points:
        if seen.get("low") is not None:
            yield f'<path d="M{_x(level)} {_y(seen["low"])}V{_y(seen["high"])}" stroke="{colour}"/>'
        yield f'<circle cx="{_x(level)}" cy="{_y(seen["value"])}" r="2.5" fill="{colour}"/>'


def _label(name: str, colour: str, place: int) -> Iterator[str]:
    y = EDGE + 18 + 18 * place
    yield f'<circle cx="{EDGE + 14}" cy="{y - 4}" r="4" fill="{colour}"/>'
    yield f'<text x="{EDGE + 24}" y="{y}" fill="{INK}">{name}</text>'
