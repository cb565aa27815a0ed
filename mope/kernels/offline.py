"""Recorded launches compiled for cards that are not at hand, and what they would take of them.

Works without a GPU and without a CUDA toolkit: Triton's wheel brings its assemblers. Not in a process that runs the
interpreter.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mope.kernels.launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SHARED_LIMIT = {"sm_80": 166_912, "sm_90": 232_448, "gfx942": 65_536}  # bytes a block may use
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.int32: "i32"}
OPTIONS = ("num_warps", "num_stages")
MATRIX = re.compile(r"HMMA|HGMMA|UTCHMMA|v_mfma")


@dataclass(frozen=True)
class Resources:
    """What a block takes: registers a thread, bytes spilled a thread, bytes of shared memory, matrix instructions."""

    registers: int
    spills: int
    shared: int
    matrix: bool

    def to_dict(self) -> dict[str, int | bool]:
        """For JSON."""
        return asdict(self)


def compile_launch(launch: Launch, arch: str) -> Any:
    """The binary of a launch for `arch`, specialised as at run time: all buffers aligned to 16 bytes."""
    names = launch.kernel.arg_names
    given = dict(zip(names, launch.args, strict=False)) | launch.options
    options = {name: given.pop(name) for name in OPTIONS if name in given}
    signature, constants, hints = {}, {}, {}
    for place, name in enumerate(names):
        value = given[name]
        if isinstance(value, Tensor):
            signature[name] = f"*{TYPES[value.dtype]}"
            hints[(place,)] = [["tt.divisibility", 16]]
        elif hasattr(value, "block_shape"):
            signature[name] = f"tensordesc<{TYPES[value.base.dtype]}{list(value.block_shape)}>"
        else:
            signature[name] = "constexpr"
            constants[(place,)] = value
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=hints)
    return triton.compile(source, target=TARGETS[arch], options=options)


def resources(binary: Any) -> Resources:
    """Registers, spills and shared memory, read from the binary itself."""
    shared = int(binary.metadata.shared)
    if "cubin" not in binary.asm:
        text = binary.asm["amdgcn"]
        spills = _number(text, r"\.private_segment_fixed_size:\s+(\d+)")
        return Resources(_number(text, r"\.vgpr_count:\s+(\d+)"), spills, shared, bool(MATRIX.search(text)))
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = _output([tools / "cuobjdump", "--dump-resource-usage", file.name])
        code = _output([tools / "nvdisasm", "-c", file.name])
    registers, stack = _number(usage, r"REG:(\d+)"), _number(usage, r"STACK:(\d+)")
    return Resources(registers, stack, shared, bool(MATRIX.search(code)))


def _output(command: list[Any]) -> str:
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return found.stdout + found.stderr


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"no {pattern} in the listing"
    return int(found[1])
