"""Imports go down, never sideways or up: what each part of the house may import, read from syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
STDLIB = {*sys.stdlib_module_names, "tomllib", "tomli"}  # tomli is tomllib before Python 3.11
GROUND = (
    *("mope.chat", "mope.errors", "mope.extras", "mope.files", "mope.machine", "mope.settings"),
    "mope.types",
)
OUTSIDE = ("training", "export", "serving_adapters")


class Row(NamedTuple):
    """What one part may import besides the standard library, the ground and itself; names in words."""

    floors: str = ""  # parts of mope
    top: str = ""  # third parties, anywhere
    inside: str = ""  # third parties, inside functions only
    lazy: bool = False  # floors, too, inside functions only


BELOW = "data predictor sim forecast mapper equinox kernels hub evaluation"
TABLE = {
    **dict.fromkeys(GROUND, Row()),
    "mope": Row("adapt predictor mapper forecast", lazy=True),
    "mope.__main__": Row("cli"),
    "mope.data": Row("", "numpy", "datasets pyarrow tokenizers huggingface_hub"),
    "mope.mapper": Row("", "numpy", "matplotlib scipy pyarrow"),
    "mope.equinox": Row(),
    "mope.kernels": Row("", "torch triton"),
    "mope.hub": Row("", "", "huggingface_hub"),
    "mope.predictor": Row(
        "data kernels hub", "numpy safetensors tokenizers torch transformers onnxruntime", "sklearn"
    ),
    "mope.inspect": Row("data evaluation predictor training", "numpy", "matplotlib rich"),
    "mope.adapt": Row("data predictor evaluation", "numpy"),
    "mope.sim": Row("data mapper equinox", "numpy"),
    "mope.sim.report": Row("data mapper equinox", "numpy matplotlib"),
    "mope.forecast": Row("predictor mapper totals", "numpy"),
    "mope.totals": Row("", "numpy"),
    "mope.busy": Row("mapper totals", "numpy"),
    "mope.cost": Row("mapper totals busy", "numpy"),
    "mope.evaluation": Row("data", "numpy", "matplotlib rich"),
    "mope.bench": Row("mapper predictor data", "numpy"),
    "mope.bench.mapper": Row("forecast mapper predictor", "numpy"),
    "mope.bench.online": Row("adapt"),
    "mope.bench.scheduler": Row("equinox"),
    "mope.bench.simulator": Row("bench sim"),
    "mope.bench.kernels": Row("bench evaluation data kernels predictor", "numpy torch", "onnxruntime triton"),
    "mope.server": Row(f"{BELOW} serving_adapters", "", "uvicorn"),
    "mope.testing": Row(BELOW, "numpy"),
    "mope.bulk": Row(
        "data predictor mapper forecast", "numpy pyarrow", "accelerate datasets onnxruntime torch"
    ),
    "mope.training": Row(
        "data predictor evaluation",
        "numpy torch transformers lightning safetensors tokenizers accelerate rich",
        "sklearn datasets huggingface_hub",
    ),
    "mope.export": Row(
        "hub predictor", "numpy torch transformers onnx onnxscript onnxruntime tokenizers", "huggingface_hub"
    ),
    "mope.serving_adapters": Row(
        "adapt equinox forecast", "", "prometheus_client vllm sglang slora lightllm httpx2"
    ),
    "mope.cli": Row(
        f"{BELOW} adapt inspect bench bulk cost server training export serving_adapters",
        "typer",
        "numpy rich",
        lazy=True,
    ),
}


class Import(NamedTuple):
    name: str
    line: int
    top: bool  # runs as soon as the module is imported


def imports(tree: ast.AST, top: bool = True) -> Iterator[Import]:
    """Every import below `tree`; `from mope import x` is spelled mope.x."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            names = [f"mope.{alias.name}" for alias in node.names] if base == "mope" else [base]
            yield from (Import(name, node.lineno, top) for name in names)
        else:
            runs = not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            yield from imports(node, top and runs and not typing_only)


def row_of(module: str) -> Row:
    """The longest entry of the table that `module` lies in; a part without one has to be added."""
    parts = module.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 1, -1)] or [module]
    return next(TABLE[prefix] for prefix in prefixes if prefix in TABLE)


def fault(module: str, found: Import) -> str:
    """Why `module` may not have this import; empty where it may."""
    row, root = row_of(module), found.name.partition(".")[0]
    if not root:
        return "relative import"
    if root in OUTSIDE:
        return f"bare {root}: say mope.{root}"
    if root != "mope":
        allowed = f"{row.top} {'' if found.top else row.inside}".split()
        return "" if root in STDLIB or root in allowed else f"{root} is not for this floor"
    part = ".".join(found.name.split(".")[:2])
    if part in ("mope", "mope.__version__", *GROUND, ".".join(module.split(".")[:2])):
        return ""
    allowed = [f"mope.{floor}" for floor in row.floors.split()]
    return "" if part in allowed and not (row.lazy and found.top) else f"{found.name} is not below {module}"


def faults(module: str, source: str) -> list[str]:
    tree = ast.parse(source)
    return [f"{module}:{found.line}: {why}" for found in imports(tree) if (why := fault(module, found))]


def sources() -> dict[str, Path]:
    """Module name -> file, for everything that is shipped."""
    homes = {"mope": ROOT / "mope", **{f"mope.{name}": ROOT / name for name in OUTSIDE}}
    links = {ROOT / "mope" / name for name in OUTSIDE}
    found = {}
    for package, home in homes.items():
        for path in home.rglob("*.py"):
            if not links & set(path.parents):
                name = ".".join((package, *path.relative_to(home).with_suffix("").parts))
                found[name.removesuffix(".__init__")] = path
    return found


@pytest.mark.parametrize("module", sources())
def test_imports_go_down(module: str) -> None:
    assert faults(module, sources()[module].read_text()) == []


def test_every_part_of_the_house_is_looked_at() -> None:
    assert {"mope", "mope.types", "mope.cli", "mope.training", "mope.predictor.text"} <= set(sources())


def test_nobody_imports_the_outside_folders_by_their_bare_names() -> None:
    for path in [*(ROOT / "tests").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]:
        roots = {found.name.partition(".")[0] for found in imports(ast.parse(path.read_text()))}
        assert not roots & set(OUTSIDE), path


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mope.types", "import numpy"),
        ("mope.chat", "from mope.predictor.text import x"),
        ("mope", "from mope.predictor.bundle import MoPE"),
        ("mope.equinox.queue", "import numpy"),
        ("mope.equinox.queue", "def f():\n    import numpy"),
        ("mope.equinox.queue", "from mope import MoPE"),
        ("mope.equinox.queue", "from mope.sim import run"),
        ("mope.data.load", "import pyarrow"),
        ("mope.data.load", "import os, datasets.arrow"),
        ("mope.data.load", "from mope import predictor"),
        ("mope.data.load", "try:\n    from mope.training import train\nexcept ImportError:\n    pass"),
        ("mope.predictor.bundle", "def f():\n    import mope.training.train"),
        ("mope.predictor.bundle", "import lightning"),
        ("mope.sim.run", "import matplotlib.pyplot"),
        ("mope.sim.report", "import torch"),
        ("mope.training.train", "from training.recipe import Recipe"),
        ("mope.training.train", "from .recipe import Recipe"),
        ("mope.training.train", "from mope.export.onnx_export import export"),
        ("mope.cli.train", "from mope.training.train import train"),
        ("mope.cli.train", "import numpy"),
        ("mope.cli.train", "def f():\n    import pandas"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str) -> None:
    assert len(faults(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mope.equinox.queue", "import heapq\nfrom mope.types import Usage\nfrom mope.equinox import state"),
        ("mope.data.load", "import numpy as np\ndef f():\n    import pyarrow.parquet"),
        ("mope.data.load", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pyarrow"),
        ("mope.sim.report", "import matplotlib"),
        ("mope.training.train", "from mope import __version__\nfrom mope.training.recipe import Recipe"),
        ("mope.cli.train", "import typer\ndef train():\n    from mope.training.train import train"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str) -> None:
    assert faults(module, source) == []
