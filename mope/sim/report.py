"""A study as one HTML page that opens offline: tables, and plots as pictures inside it. No other file here draws."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from mope.extras import require
from mope.files import write_text
from mope.sim.log import Requests
from mope.sim.metrics import Service, times

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
MOST_LINES = 8
MARKERS = "osD^v<>Ph*X"  # as many as there are variants: ten colours come round again
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:92rem;margin:2rem auto;padding:0 1rem;color:#222}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:12.5px;margin:1rem 0}"
    "td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid #ddd;vertical-align:top}"
    "td{white-space:nowrap;font-variant-numeric:tabular-nums}th{vertical-align:bottom}.word{text-align:left}"
    "tbody tr:hover{background:#f6f6f6}.better{color:#176f2c}.worse{color:#b3261e}"
    "img{max-width:100%;height:auto}pre{background:#f5f5f5;padding:1rem;overflow:auto;font-size:12px}"
    "figure{display:inline-block;vertical-align:top;width:calc(50% - 1.1rem);margin:.5rem .5rem 1rem 0}"
    "@media(max-width:60rem){figure{width:100%}}figcaption{color:#555;font-size:13px}h2{margin-top:2.5rem}"
)


class Page:
    """Parts of a page, added in order."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str) -> None:
        """A section begins."""
        self._parts.append(f"<h2>{escape(text)}</h2>")

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> None:
        """Cells as text; the first `words` columns to the left, numbers to the right."""
        cells = "".join(_cell("th", cell, place < words) for place, cell in enumerate(head))
        body = "".join(
            "<tr>" + "".join(_cell("td", cell, place < words) for place, cell in enumerate(row)) + "</tr>"
            for row in rows
        )
        self._parts.append(
            f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
        )

    def picture(self, png: bytes, caption: str) -> None:
        """A plot with what it shows."""
        data, said = base64.b64encode(png).decode(), escape(caption)
        self._parts.append(
            f'<figure><img alt="{said}" src="data:image/png;base64,{data}"><figcaption>{said}</figcaption></figure>'
        )

    def fold(self, title: str, text: str) -> None:
        """A text that is shown on a click."""
        self._parts.append(f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>")

    def save(self, path: Path) -> None:
        """Write the page, whole or not at all."""
        title = escape(self.title)
        html = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
            f"<body><h1>{title}</h1>{''.join(self._parts)}</body></html>\n"
        )
        write_text(path, html)


def _cell(kind: str, text: str, word: bool) -> str:
    marks = [mark for mark in ("better", "worse") if text.endswith(f" {mark}")]
    named = " ".join([*(["word"] if word else []), *marks])
    return f"<{kind}{f' class={chr(34)}{named}{chr(34)}' if named else ''}>{escape(text)}</{kind}>"


def lines(curves: Curves, x: str, y: str, title: str = "", log_x: bool = False) -> bytes:
    """Curves as a PNG; the first of them have the same colours whatever their number."""
    figure, axes = _figure()
    for name, (xs, ys) in curves.items():
        axes.plot(xs, ys, label=name, linewidth=1.6)
    axes.set(xlabel=x, ylabel=y, title=title)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if abs(value) >= 1000 else f"{value:g}")
    if curves:
        axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def front(points: Mapping[str, tuple[float, float]], x: str, y: str) -> bytes:
    """Named points as a PNG."""
    figure, axes = _figure()
    for (name, (a, b)), marker in zip(points.items(), cycle(MARKERS)):
        axes.plot([a], [b], marker, markersize=7, label=name)
    axes.set(xlabel=x, ylabel=y)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return _png(figure)


def largest(log: Requests) -> list[str]:
    """The clients that asked for the most tokens, largest first."""
    asked = np.bincount(log.client, log.prompt_tokens + log.asked_tokens, len(log.clients))
    return [log.clients[code] for code in np.argsort(-asked, kind="stable")[:MOST_LINES]]


def service_curves(log: Requests, end_s: float, clients: Sequence[str]) -> Curves:
    """Service received by each of some clients over time, in weighted tokens."""
    at = np.linspace(0.0, end_s, 200)
    service = Service.of(log)
    received = dict(zip(service.names, service.received(at).tolist(), strict=True))
    return {name: (at.tolist(), received[name]) for name in clients if name in received}


def ttft_cdf(log: Requests) -> tuple[list[float], list[float]]:
    """Seconds to the first token, and the share of requests that had it by then."""
    values = np.sort(times(log.take(log.done))["ttft_s"])
    shares = np.arange(1, len(values) + 1) / max(len(values), 1)
    keep = np.unique(np.linspace(0, len(values) - 1, 400).astype(int)) if len(values) else np.empty(0, int)
    return np.maximum(values[keep], 1e-3).tolist(), shares[keep].tolist()


def _figure() -> tuple[Any, Any]:
    require("plots", "drawing a report")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
