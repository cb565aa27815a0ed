"""`mope export`: what it refuses, and experts for transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mope.cli import build_app
from mope.errors import BadInput
from mope.predictor.bundle import MoPE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compact", "small"], "--compact without --int8"),
        (["--int8", "--compact", "FILE"], "which is a file"),
    ],
)
def test_what_does_not_go_together(
    words: list[str], message: str, exported: tuple[Path, Path], tmp_path: Path
):
    (tmp_path / "file").write_text("")
    said = [str(tmp_path / "file") if word == "FILE" else word for word in words]
    result = CliRunner().invoke(build_app(), ["export", str(exported[0]), *said])
    assert isinstance(result.exception, BadInput)
    assert message in str(result.exception)


def test_a_compact_bundle_has_nothing_to_export(exported: tuple[Path, Path]):
    result = CliRunner().invoke(build_app(), ["export", str(exported[1]), "--int8"])
    assert isinstance(result.exception, BadInput)
    assert "without PyTorch weights" in str(result.exception)


def test_experts_for_transformers(exported: tuple[Path, Path], tmp_path: Path):
    pytest.importorskip("transformers")
    bundle = Path(shutil.copytree(exported[0], tmp_path / "b"))
    result = CliRunner().invoke(build_app(), ["export", str(bundle), "--to", "transformers", "--json"])
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert set(written) == {"short", "medium", "long"}
    for folder in written.values():
        assert Path(folder).parent == bundle / "transformers"
        assert json.loads((Path(folder) / "config.json").read_text())["model_type"] == "bert"
    assert MoPE.from_pretrained(bundle).files == MoPE.from_pretrained(exported[0]).files
