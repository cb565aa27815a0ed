#!/usr/bin/env bash
# Format, lint, types, tests. All four run; any failure makes the exit status non-zero.
set -uo pipefail
cd "$(dirname "$0")/.."

failed=()
check() { echo "== $*"; "$@" || failed+=("$*"); }

check ruff check .
check ruff format --check .
check mypy
check python -m pytest -n 2 --dist loadfile "$@"

if ((${#failed[@]})); then
    printf 'FAILED: %s\n' "${failed[@]}" >&2
    exit 1
fi
