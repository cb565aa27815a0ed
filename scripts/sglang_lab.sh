#!/usr/bin/env bash
# A real SGLang on a CPU: builds its pinned virtual environment in FOLDER (3.3 GB) and runs the tests against it.
# Usage: scripts/sglang_lab.sh FOLDER PYTHON_OF_THE_TESTS [pytest arguments]
# The environment is built with python3.11 (LAB_PYTHON). Where torch==2.13.0 would come with CUDA, set
# PIP_EXTRA_INDEX_URL to the index of PyTorch's CPU builds first. LAB_LIMIT_S (2400) ends the tests.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
folder="$1" tests="$2"
shift 2

if [ ! -e "$folder/.installed" ]; then
    "${LAB_PYTHON:-python3.11}" -m venv "$folder"
    "$folder/bin/pip" install --quiet --upgrade pip
    "$folder/bin/pip" install --quiet torch==2.13.0
    "$folder/bin/pip" install --quiet --no-deps -r "$root/tests/serving_adapters/sglang/requirements.txt"
    touch "$folder/.installed"
fi
"$folder/bin/pip" install --quiet --no-deps --editable "$root"
cd "$root"
MOPE_TEST_SGLANG="$(realpath -s "$folder/bin/python")" timeout --kill-after=20 "${LAB_LIMIT_S:-2400}" \
    "$tests" -m pytest -q tests/serving_adapters/sglang "$@"
