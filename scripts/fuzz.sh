#!/usr/bin/env bash
# Ten thousand damaged bundles, or as many as asked for: each is refused by name or answers with numbers, nothing is
# written, memory stays bounded. About a quarter of an hour on one core.
set -euo pipefail
cd "$(dirname "$0")/.."
MOPE_FUZZ=${1:-10000} python -m pytest -q -p no:cacheprovider tests/predictor/test_bundle_fuzz.py --hypothesis-seed=0 --durations=3
