"""Optional dependencies: checked at the door of the folder that needs them."""

from __future__ import annotations

from importlib.util import find_spec

from mope.errors import MissingExtra

MODULES: dict[str, tuple[str, ...]] = {
    "train": ("torch", "lightning", "sklearn", "datasets", "tensorboard"),
    "torch": ("torch", "accelerate"),
    "data": ("datasets", "pyarrow"),
    "export": ("torch", "onnx", "onnxscript"),
    "transformers": ("torch", "transformers"),
    "fit": ("scipy",),
    "plots": ("matplotlib",),
    "serve": ("uvicorn", "httpx2"),
}


def require(extra: str, purpose: str) -> None:
    """Raise `MissingExtra` unless every module of `extra` can be imported."""
    missing = [name for name in MODULES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtra(
            f"{purpose} needs {', '.join(missing)}, which the base install leaves out; "
            f"install with: pip install 'mope-llm[{extra}]'"
        )
