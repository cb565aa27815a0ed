"""Bundles under damage: whatever happens to a file, a bundle is refused by name or answers with numbers.

Nothing is written, and memory stays bounded. MOPE_FUZZ=10000 asks for as many bundles; scripts/fuzz.sh does.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mope.errors import BundleError
from mope.predictor.bundle import MoPE
from mope.types import History, Request

REQUESTS = (
    Request("Explain the weather"),
    Request("Continue", history=History(1, ("Tell me more",), (300,), "the end.", 40), model="synthetic"),
)
HOSTILE = (
    *(None, True, 0, -1, 1, 10**9, 10**400, 1e308, math.nan, math.inf, "", "x", "../x", "a" * 5000, "a\0b"),
    *("\ud800", [], {}, [1], [0.1, 0.5, 0.9], {"a": 1}, [[1, 2]]),
)
JSON = st.sampled_from(HOSTILE) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
COUNT = int(os.environ.get("MOPE_FUZZ", "200"))
MOST_GROWTH = 1 << 30  # bytes of memory above the start
HEAD = 3000  # bytes: headers and names of tensors lie there, where one bit says more than in a weight


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fuzz")
    (home / "outside").write_text("nobody's business")
    return home / "bundle"


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value below a JSON value; of a long list, the first."""
    below = (
        value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    )
    for key, inner in below:
        yield (*at, key)
        yield from places(inner, (*at, key))


def edit(path: Path, draw: Any) -> None:
    """Replace, drop or add one value anywhere in a JSON file."""
    raw = json.loads(path.read_text())
    *parts, key = draw(st.sampled_from(sorted(places(raw), key=repr)), "place")
    holder = raw
    for part in parts:
        holder = holder[part]
    how = draw(st.sampled_from(["replace", "replace", "drop", "add"]), "edit")
    if how == "drop":
        del holder[key]
    elif how == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=3), "name")] = draw(JSON, "value")
    else:
        holder[key] = draw(JSON, "value")
    path.write_text(json.dumps(raw))


def damage(path: Path, draw: Any) -> None:
    """Delete a file, cut it, or change some of its bytes."""
    how = draw(st.sampled_from(["flip", "flip", "flip", "cut", "delete", "link", "swell"]), "damage")
    content = bytearray(path.read_bytes())
    if how == "delete":
        path.unlink()
    elif how == "link":
        path.unlink()
        path.symlink_to(
            draw(st.sampled_from(["/etc/passwd", "../outside", "config.json", path.name]), "target")
        )
    elif how == "swell":  # a file with a hole takes no disk
        os.truncate(path, draw(st.sampled_from([1 << 28, 1 << 33, 1 << 40]), "size"))
    elif how == "cut":
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1), "length")])
    else:
        end = len(content) if draw(st.booleans(), "anywhere") else min(len(content), HEAD)
        for place in draw(st.lists(st.integers(0, end - 1), min_size=1, max_size=20), "bytes"):
            content[place] ^= draw(st.integers(1, 255), "bits")
        path.write_bytes(content)


def answers_or_is_refused(folder: Path, backend: str) -> None:
    try:
        forecasts = MoPE.from_pretrained(folder, backend=backend).predict(REQUESTS)
    except BundleError:
        return
    for f in forecasts:
        assert all(map(math.isfinite, (f.tokens, f.low, f.high, *f.quantiles, *f.probabilities))), f
        assert 0 <= f.low <= f.tokens <= f.high


def fuzzed(source: Path, work: Path, draw: Any, backend: str) -> None:
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work, ignore=shutil.ignore_patterns("run"))
    if draw(st.booleans(), "drop the hashes"):
        config = json.loads((work / "config.json").read_text())
        (work / "config.json").write_text(json.dumps({**config, "files": {}}))
    texts = ["config.json", "config.json", "calibration.json", "tokenizer.json"]
    names = sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())
    if draw(st.booleans(), "json"):
        edit(work / draw(st.sampled_from(texts), "file"), draw)
    else:
        damage(work / draw(st.sampled_from(names), "file"), draw)
    before, start = listing(work.parent), peak()
    answers_or_is_refused(work, backend)
    assert listing(work.parent) == before
    assert peak() - start < MOST_GROWTH


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with size and time of change."""
    found = {path.relative_to(folder).as_posix(): path.lstat() for path in folder.rglob("*")}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def peak() -> int:
    """Most bytes of memory that this process ever held."""
    resource = pytest.importorskip("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


@settings(max_examples=COUNT * 4 // 5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_graphs(exported: tuple[Path, Path], work: Path, data: st.DataObject):
    fuzzed(exported[1], work, data.draw, "auto")


@settings(max_examples=COUNT // 5, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_pytorch_weights(tiny: Path, work: Path, data: st.DataObject):
    fuzzed(tiny, work, data.draw, "torch")


def test_nothing_hurt_answers(exported: tuple[Path, Path], work: Path):
    """The checks above do not pass because everything is refused."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(exported[1], work)
    assert len(MoPE.from_pretrained(work).predict(REQUESTS)) == 2
