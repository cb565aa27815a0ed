"""What the pages on tags, the gate and S-LoRA show can be run, and names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mope.serving_adapters.dialects import DIALECTS

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("tags", "gate", "slora")}


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGES[page], re.DOTALL)


def test_the_taggers_example_runs() -> None:
    (code,) = blocks("tags")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["priority"] == 0
    assert len(names["tagger"]) == 0  # type: ignore[arg-type]


def test_the_gates_examples_run() -> None:
    middleware, around = blocks("gate")
    names: dict[str, object] = {}
    exec(middleware, names)
    exec(around, names)
    assert type(names["app"]).__name__ == "FairMiddleware"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_dialect_is_on_the_page_with_its_flags(name: str) -> None:
    (row,) = [line for line in PAGES["tags"].splitlines() if line.startswith(f"| `{name}` |")]
    assert f"`{' '.join(DIALECTS[name].flags)}`" in row
    assert ("lower" if DIALECTS[name].sign > 0 else "higher") in row
    assert DIALECTS[name].untagged in row


@pytest.mark.parametrize("page", PAGES)
def test_every_option_shown_is_one_of_the_command(page: str) -> None:
    from inspect import signature

    from mope.cli.serve import serve

    known = {f"--{name.replace('_', '-')}" for name in signature(serve).parameters} | {"--gate", "--set"}
    for line in PAGES[page].splitlines():
        if line.startswith("mope serve"):
            assert set(re.findall(r"--[\w-]+", line)) <= known, line
