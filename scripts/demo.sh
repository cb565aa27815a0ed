#!/usr/bin/env bash
# The main job on real prompts: train a tiny bundle, measure it beside the floors, predict with it and with the
# bundle that ships. Takes about a minute on two CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-build/demo}
rm -rf "$work"

say() { printf '\n== %s\n' "$*"; }

say "1/3 train: mope train samples/chats.jsonl.gz --output $work/bundle --preset tiny"
mope train samples/chats.jsonl.gz --output "$work/bundle" --preset tiny --no-evaluate

say "2/3 evaluate: mope evaluate $work/bundle samples/chats.jsonl.gz --by source"
mope evaluate "$work/bundle" samples/chats.jsonl.gz --by source --output "$work/report"

say "3/3 predict: five prompts, with the bundle that ships"
mope predict --file samples/prompts.txt
say "The bundle is in $work/bundle, the report with plots in $work/report"
