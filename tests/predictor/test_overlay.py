"""Overlays: rising whatever is in them, the same after a round trip, refused when damaged or foreign."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mope.data.synthetic import synthetic
from mope.errors import BundleError
from mope.predictor.bundle import MoPE
from mope.predictor.overlay import Overlay, Ridge, basis
from mope.predictor.overlays import identity, load_overlays, overlay_path, write_overlay
from mope.types import Request

numbers = st.floats(-3, 3)
steps = st.floats(0.01, 2)


@st.composite
def overlays(draw: st.DrawFn) -> Overlay:
    size = draw(st.integers(0, 5))
    x = np.cumsum([draw(steps) for _ in range(size)])
    y = np.cumsum([draw(st.floats(0, 2)) for _ in range(size)])
    width = draw(st.integers(0, 4))
    ridge = Ridge(*(tuple(draw(of) for _ in range(width)) for of in (numbers, steps, numbers)), draw(steps))
    return Overlay(
        "m", "b", 9, "", tuple(draw(numbers) for _ in range(3)), tuple(zip(x.tolist(), y.tolist(), strict=True)),
        draw(st.floats(0, 2)), ridge if width else None, draw(steps),
        tuple((draw(numbers), draw(numbers)) for _ in range(3)),
    )  # fmt: skip


@given(overlays(), st.lists(st.floats(-2, 12), min_size=3, max_size=9))
def test_quantiles_stay_in_order_and_a_longer_forecast_never_becomes_a_shorter_one(
    overlay: Overlay, values: list[float]
):
    logs = np.sort(np.array(values))[None, :]
    width = len(overlay.ridge.weights) if overlay.ridge else 2
    out = overlay.logs(logs, np.ones((1, width)), len(values) // 2)
    assert (np.diff(out) >= -1e-9).all()
    assert (np.diff(overlay.corrected(logs)) >= -1e-9).all()


@given(overlays())
def test_a_round_trip(overlay: Overlay):
    assert Overlay.from_json(overlay.to_json()) == overlay


def test_an_overlay_that_learned_nothing_changes_nothing():
    overlay, chances = Overlay("m"), np.array([[0.2, 0.3, 0.5]])
    logs = np.array([[1.0, 2.0, 4.0]])
    assert (overlay.logs(logs, np.zeros((1, 1)), 1) == logs).all()
    assert (overlay.chances(chances) == chances).all()


def test_the_parts_by_hand():
    overlay = Overlay(
        "m", router=(0.0, np.log(2), 0.0), knots=((1.0, 2.0), (3.0, 3.0)), slope=2.0, spread=0.5
    )
    assert overlay.chances(np.array([[0.25, 0.5, 0.25]])) == pytest.approx(np.array([[1, 4, 1]]) / 6)
    assert overlay.corrected(np.array([0.0, 1.0, 2.0, 3.0, 4.0])) == pytest.approx([0, 2, 2.5, 3, 5])
    assert overlay.logs(np.array([[1.0, 2.0, 4.0]]), np.zeros((1, 1)), 1) == pytest.approx(
        np.array([[2.25, 2.5, 3.75]])
    )


def test_a_ridge_stays_within_its_limit_and_knows_its_columns():
    ridge = Ridge((0.0,), (1.0,), (1.0,), 0.5)
    assert ridge(np.array([[0.2], [9.0], [-9.0]])).tolist() == [0.2, 0.5, -0.5]
    with pytest.raises(BundleError, match="over 1 columns, not 2"):
        ridge(np.zeros((1, 2)))


def test_the_basis_takes_missing_features_as_zero():
    features = np.array([[np.nan, -3.0]], np.float32)
    rows = basis(features, np.arange(9.0).reshape(1, 3, 3), np.array([[0.2, 0.4, 0.4]]), (0.1, 0.5, 0.9))
    assert rows[0, :2] == pytest.approx([0, -np.log(4)])
    assert rows[0, 2:11].tolist() == list(range(9))
    assert rows[0, 11:] == pytest.approx([np.log(2), np.log(2)])


GOOD = json.loads(Overlay("m").to_json())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"), ("[]", "cannot be read"), ("{}", "cannot be read"),
        ('{"format": 1}', "cannot be read"), (json.dumps({**GOOD, "router": "abc"}), "list of"),
        (json.dumps({**GOOD, "format": 2}), "another format"), (json.dumps({**GOOD, "more": 1}), "unknown keys"),
        (json.dumps({**GOOD, "model": 3}), "no text"), (json.dumps({**GOOD, "model": ""}), "no model"),
        (json.dumps({**GOOD, "router": [0, 0]}), "router"), (json.dumps({**GOOD, "ends": [[0, 0]]}), "shape"),
        (json.dumps({**GOOD, "knots": [[1, 2], [1, 3]]}), "rise"), (json.dumps({**GOOD, "spread": 0}), "below 0"),
        (json.dumps({**GOOD, "slope": float("inf")}), "not finite"),
        (json.dumps({**GOOD, "ridge": {"center": [1], "scale": [0], "weights": [1], "limit": 1}}), "ridge"),
        (json.dumps({**GOOD, "ridge": {"center": [0] * 9999, "scale": [], "weights": [], "limit": 1}}), "list of 9"),
    ],
)  # fmt: skip
def test_a_damaged_overlay_is_refused_by_name(text: str, words: str):
    with pytest.raises(BundleError, match=words) as found:
        Overlay.from_json(text, "here.json")
    assert "here.json" in str(found.value)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy", ignore=shutil.ignore_patterns("run")))


def doubling(bundle: MoPE, model: str = "new") -> Overlay:
    knots = ((0.0, float(np.log(2))), (1.0, 1.0 + float(np.log(2))))
    return Overlay(model, identity(bundle.folder, bundle.config), knots=knots)


def test_an_overlay_beside_the_bundle_answers_for_its_model(copy: Path):
    bundle = MoPE.from_pretrained(copy)
    write_overlay(overlay_path(copy, "org/new model"), doubling(bundle, "org/new model"))
    adapted = MoPE.from_pretrained(copy)
    prompts = [
        Request(r.prompt, model=m) for r in synthetic(9).requests for m in ("org/new model", "else", None)
    ]
    before, after = ([f.tokens for f in b.predict(prompts)] for b in (bundle, adapted))
    ratio = (np.array(after) + 1) / (np.array(before) + 1)
    assert ratio == pytest.approx([2, 1, 1] * 9, rel=1e-3)
    columns, plain = adapted.columns(prompts), bundle.columns(prompts)
    for name in ("MoPE (routed, hard)", "MoPE (routed, soft)"):
        ratio = (columns[name].tokens + 1) / (plain[name].tokens + 1)
        assert ratio == pytest.approx([2, 1, 1] * 9, rel=1e-3)
    adapted.overlays.by_model["org/new model"] = Overlay("org/new model", router=(9.0, 0.0, -9.0))
    shifted = adapted.columns(prompts)
    chances = [shifted[f"MoPE (routed, {name})"].probabilities for name in ("hard", "soft")]
    assert chances[0] is not None
    assert chances[1] is not None
    assert (chances[0] == chances[1]).all()  # one shift, not one on top of the other
    assert [f.tokens for f in MoPE.from_pretrained(copy, overlay="none").predict(prompts)] == pytest.approx(
        before
    )


def test_one_that_is_asked_for_answers_where_no_model_is_named(copy: Path, tmp_path: Path):
    bundle = MoPE.from_pretrained(copy)
    path = write_overlay(tmp_path / "mine.json", doubling(bundle))
    asked = MoPE.from_pretrained(copy, overlay=path).predict(
        [Request("hello"), Request("hello", model="else")]
    )
    plain = bundle.predict("hello").tokens
    assert [(f.tokens + 1) / (plain + 1) for f in asked] == pytest.approx([2, 1], rel=1e-3)


def test_what_is_no_overlay_of_this_bundle(copy: Path, tmp_path: Path):
    bundle = MoPE.from_pretrained(copy)
    for name, overlay, words in (
        ("foreign", replace(doubling(bundle), bundle="0" * 64), "another bundle"),
        ("stranger", replace(doubling(bundle), reads_as="gpt-9"), "reads as 'gpt-9'"),
    ):
        path = write_overlay(tmp_path / f"{name}.json", overlay)
        with pytest.raises(BundleError, match=words):
            MoPE.from_pretrained(copy, overlay=path)
    with pytest.raises(BundleError, match="cannot be read"):
        MoPE.from_pretrained(copy, overlay=tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(BundleError, match="not UTF-8"):
        MoPE.from_pretrained(copy, overlay=tmp_path / "binary.json")
    (copy / "overlays").mkdir()
    (copy / "overlays" / "a.json").write_text("{")
    with pytest.raises(BundleError, match=r"a\.json cannot be read"):
        MoPE.from_pretrained(copy)


def test_a_changed_calibration_makes_it_another_bundle(copy: Path):
    bundle = MoPE.from_pretrained(copy)
    write_overlay(overlay_path(copy, "new"), doubling(bundle))
    assert set(load_overlays(copy, bundle.config, None).by_model) == {"new"}
    (copy / "calibration.json").write_text('{"shifts": {}}')
    with pytest.raises(BundleError, match="another bundle"):
        MoPE.from_pretrained(copy)


def test_every_model_has_a_file_of_its_own(tmp_path: Path):
    paths = {overlay_path(tmp_path, name) for name in ("a/b", "a-b", "a:b", "..", "", "a" * 300)}
    assert len(paths) == 6
    assert all(path.parent == tmp_path / "overlays" and len(path.name) < 80 for path in paths)
