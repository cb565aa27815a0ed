"""vLLM's own scheduler tests, with its classes and with ours: which pass with theirs and not with ours?

    build/vllm/bin/python scripts/vllm_suite.py 0.32.0 0.33.0 --work build/vllm-suite

Needs the environment of `make test-vllm`, and the package index for vLLM's source distribution, which holds its tests
(they are vLLM's, Apache-2.0: run, never copied into this repository). A version other than the installed one is run
from its source, beside the installed compiled parts; the scheduler's tests need none of them. Models are folders with
a configuration only, so nothing else is downloaded. Exit code 1 where a test passes with theirs and not with ours.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as Tree
from pathlib import Path
from typing import Any

FILES = (
    "test_scheduler test_async_scheduler test_priority_scheduler_random test_priority_preemption_bug test_output "
    "test_deferred_block_free test_worker_slot_overflow"
)
SLOW = "standard-"  # six cases of test_priority_scheduler_random of 90 to 300 seconds each
BUILD_TOOLS = ("setuptools", "setuptools-scm", "setuptools-rust", "wheel", "jinja2")
TORCHVISION = "torchvision==0.28.0"  # its Python half: image processors want to import it
SITE = '''"""Defines what torchvision's compiled half would; vLLM looks at models in processes of its own."""
import torch

keep = torch.library.Library("torchvision", "DEF")
keep.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
keep.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
'''
PLUGIN = '''"""Has vLLM's scheduler modules hold our classes before a test imports them."""
import vllm.v1.core.sched.async_scheduler as theirs_async
import vllm.v1.core.sched.scheduler as theirs

from mope.serving_adapters.vllm_adapter import fair_class

fair = fair_class(theirs.Scheduler)
theirs_async.AsyncScheduler = fair_class(theirs_async.AsyncScheduler)
theirs.Scheduler = fair
'''


def fetch(version: str, work: Path) -> Path:
    """The unpacked source distribution of a version."""
    home = work / f"vllm-{version}"
    if home.is_dir():
        return home
    archive = work / f"vllm-{version}.tar.gz"
    if not archive.is_file():
        pip = [sys.executable, "-m", "pip"]
        subprocess.run([*pip, "install", "--quiet", *BUILD_TOOLS], check=True)
        subprocess.run(
            [*pip, "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
             f"vllm=={version}"],
            cwd=work, env={**os.environ, "VLLM_VERSION_OVERRIDE": version, "VLLM_TARGET_DEVICE": "empty"}, check=True,
        )  # fmt: skip
    with tarfile.open(archive) as files:
        files.extractall(work, filter="data")
    return home


def prepare(version: str, home: Path, work: Path) -> Path:
    """A folder to run in: vLLM's tests, configuration-only models; its source where another version is installed."""
    place = work / f"run-{version}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(home / "tests", place / "tests")
    (place / "fair_suite.py").write_text(PLUGIN)
    (place / "sitecustomize.py").write_text(SITE)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target"]
    subprocess.run([*pip, str(place), TORCHVISION], check=True)
    models(place)
    from vllm import __version__ as installed

    if installed.partition("+")[0] != version:
        (place / "vllm").symlink_to(home / "vllm")
        facts = place / f"vllm-{version}+cpu.dist-info"  # by "cpu" in it vLLM knows its platform
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    return place


def models(place: Path) -> None:
    """Models of default numbers under the names that the tests use: configurations and tokenizers, no weights."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaProcessor,
        OPTConfig,
    )

    for name in ("facebook/opt-125m", "facebook/opt-350m"):
        OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(place / name)
        _tokenizer(50272).save_pretrained(place / name)
    llava = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
            image_size=336,
        ),
        text_config=LlamaConfig(vocab_size=32064, max_position_embeddings=4096),
        image_token_index=32000, architectures=["LlavaForConditionalGeneration"],
    )  # fmt: skip
    size = {"shortest_edge": 336}
    processor = LlavaProcessor(
        CLIPImageProcessor(size=size, crop_size={"height": 336, "width": 336}), _tokenizer(32064, "<image>", 32000),
        patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1,
    )  # fmt: skip
    for name in ("llava-hf/llava-1.5-7b-hf", "Qwen/Qwen2.5-VL-3B-Instruct"):  # any that takes images will do
        llava.save_pretrained(place / name)
        processor.save_pretrained(place / name)


def _tokenizer(size: int, special: str = "", at: int = 0) -> Any:
    """A tokenizer of words w0, w1, ...; one of them may be special."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {special if special and n == at else f"w{n}": n for n in range(size)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="w3")), eos_token="w2", bos_token="w0", pad_token="w1",
        **({"additional_special_tokens": [special]} if special else {}),
    )  # fmt: skip
    return tokenizer


def run(place: Path, fair: bool, slow: bool, more: list[str]) -> dict[str, str]:
    """Test -> passed, failed or skipped."""
    report = place / ("fair.xml" if fair else "stock.xml")
    repository = Path(__file__).resolve().parents[1]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(place), str(repository))), "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1",
        "MOPE_EQUINOX": '{"clock": "steps"}',
    }  # fmt: skip
    files = [f"tests/v1/core/{name}.py" for name in FILES.split()]
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout", "900", f"--junitxml={report}",
        *(["-p", "fair_suite"] if fair else []), *([] if slow else ["-k", f"not {SLOW}"]),
        *[name for name in files if (place / name).is_file()], *more,
    ]  # fmt: skip
    subprocess.run(command, cwd=place, env=env, stdout=sys.stderr, check=False)
    return _outcomes(report)


def _outcomes(report: Path) -> dict[str, str]:
    found = {}
    for case in Tree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "skipped" if "skipped" in kinds else "failed" if kinds & {"failure", "error"} else "passed"
        found[f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"] = outcome
    return found


def main() -> None:
    """Run both for each version, write a table; fail where ours fails alone."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("versions", nargs="+")
    parser.add_argument("--work", type=Path, default=Path("build/vllm-suite"))
    parser.add_argument("--slow", action="store_true", help="the six slow cases, too")
    asked, more = parser.parse_known_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    results = {}
    for version in asked.versions:
        place = prepare(version, fetch(version, work), work)
        stock, fair = (run(place, fair, asked.slow, more) for fair in (False, True))
        ours_alone = sorted(name for name, outcome in stock.items() if outcome == "passed" != fair.get(name))
        results[version] = {
            "stock_passed": sum(outcome == "passed" for outcome in stock.values()),
            "fair_passed": sum(outcome == "passed" for outcome in fair.values()),
            "selected": len(stock),
            "failed_with_both": sorted(
                n for n, o in stock.items() if o == "failed" and fair.get(n) == "failed"
            ),
            "failed_with_ours_alone": ours_alone,
        }
    (work / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))
    raise SystemExit(any(result["failed_with_ours_alone"] for result in results.values()))


if __name__ == "__main__":
    main()
