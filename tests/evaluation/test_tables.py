from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from mope.evaluation.bootstrap import Interval
from mope.evaluation.evaluate import evaluate
from mope.evaluation.report import ORACLE_NOTE, Report
from mope.evaluation.tables import cell, markdown, plain, report_tables, share, summary, tokens

NAN = float("nan")


@pytest.fixture
def report(worlds: Any) -> Report:
    return evaluate(*worlds.noisy(80, answers=2), by="source", part="all", n_boot=50)


def test_cells() -> None:
    assert cell(Interval(71.24, 69.8, 72.5), tokens) == "71.2 [69.8, 72.5]"
    assert cell(Interval(0.5, 0.4, 0.61), share) == "50.0 % [40.0, 61.0]"
    assert cell(Interval(0.5, NAN, NAN), plain) == "0.500"
    assert cell(Interval(NAN, NAN, NAN), plain) == cell(None, plain) == "-"


def test_every_forecaster_has_a_row_and_the_oracle_its_note(report: Report) -> None:
    first, second = report_tables(report)[:2]
    names = [column.name for column in report.columns]
    assert [row[0] for row in first.rows] == [row[0] for row in second.rows] == names
    assert first.note == second.note == ORACLE_NOTE


def test_tables_are_rectangular(report: Report) -> None:
    found = report_tables(report)
    assert len(found) == 8
    assert all(len(row) == len(table.header) for table in found for row in table.rows)


def test_what_was_not_measured_has_no_table(worlds: Any) -> None:
    report = evaluate(*worlds.exact({"MoPE (routed, soft)": [1, 2]}, [[1], [2]]), part="all", n_boot=20)
    titles = " ".join(table.title for table in report_tables(report))
    assert "several answers" not in titles
    assert "MAE by" not in titles
    assert "against" not in titles
    assert not any(table.note == ORACLE_NOTE for table in report_tables(report))


def test_markdown_escapes_bars_and_shows_pictures(worlds: Any) -> None:
    bundle, data = worlds.exact({"MoPE (routed, soft)": [1, 2]}, [[1], [2]], sources=["a|b", "c"])
    report = evaluate(bundle, data, by="source", part="all", n_boot=20)
    text = markdown(report, ["deciles.png"])
    assert "| a\\|b | 1 |" in text
    assert text.rstrip().endswith("![deciles](deciles.png)")
    assert summary(report) in text


def test_rich_shows_the_interval_below_its_value(report: Report) -> None:
    out = StringIO()
    console = Console(file=out, width=110)
    for table in report_tables(report):
        console.print(table)
    lines = out.getvalue().splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("MoPE (routed, hard)"))
    value, low_high = cell(report.columns[0].metrics["mae"], tokens).split(" ", 1)
    assert value in lines[place]
    assert low_high in lines[place + 1]
