"""A model card from facts.json and a words file: every number is a fact, every sentence is somebody's.

Sections that the facts have nothing for are left out. The metadata on top make the Hub show the metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mope.export.words import Words, filled

Facts = Mapping[str, Any]
METRICS = {
    "mae": "MAE, tokens",
    "acc_100": "within 100 tokens",
    "tau_b": "Kendall tau-b",
    "order_accuracy": "order accuracy",
}
SHARES = {"acc_100", "order_accuracy"}
COLUMNS = {
    "constant": "constant median", "surface GBDT": "boosted trees, prompt only",
    "context GBDT": "boosted trees, all features", "MoPE (oracle router)": "MoPE, oracle router (no user gets this)",
    "MoPE (routed, soft)": "MoPE, soft routing", "MoPE (routed, hard)": "MoPE, hard routing",
}  # fmt: skip
AIM = (0.78, 0.82)  # of the share of answers inside the 80 % interval
WATTS = 50.0  # of one busy CPU core, its share of memory and power supply included
PLOT = "reliability.svg"


def render(facts: Facts, words: Words, plot: str = PLOT) -> str:
    """The card's Markdown; `plot` is where the picture of `mope.export.card_plot` will lie."""
    parts = [
        _metadata(facts, words), f"# {filled(words.title, facts)}", filled(words.summary, facts),
        f"**Intended use.** {filled(words.intended, facts)}", filled(words.makeup, facts),
        *_use(words), *_data(facts, words), *_evaluation(facts), *_slices(facts), *_calibration(facts, plot),
        *_compute(facts), *_exports(facts), *_limits(facts, words), *_again(words), *_citation(words),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def with_energy(facts: Facts) -> dict[str, Any]:
    """The facts, and an estimate of the energy that training took: hours x threads x `WATTS`."""
    if "stages" not in facts:
        return dict(facts)
    hours = sum(stage["seconds"] for stage in facts["stages"].values()) / 3600
    kwh = hours * facts["threads"] * WATTS / 1000
    energy = {"hours": hours, "watts": WATTS, "kwh": kwh, "method": "hours x threads x watts of a busy core"}
    return {**facts, "energy": energy}


def _metadata(facts: Facts, words: Words) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if "evaluation" in facts:
        columns = {column["name"]: column["metrics"] for column in facts["evaluation"]["columns"]}
        found = columns[facts["evaluation"]["default"]]
        results = [
            EvalResult(
                "text-regression",
                "mope-test",
                "test part, by conversation",
                name,
                round(found[name]["value"], 4),
            )
            for name in METRICS
            if found.get(name)
        ]
    card = ModelCardData(
        model_name=filled(words.title, facts), eval_results=results or None, library_name="mope",
        license=words.licence or None, base_model=words.base_model or None, language=words.language or None,
        tags=words.tags or None,
    )  # fmt: skip
    return f"---\n{card.to_yaml(line_break=chr(10))}\n---"


def _use(words: Words) -> Iterator[str]:
    given = repr(words.source) if words.source else ""
    lines = [
        "from mope import MoPE",
        f"bundle = MoPE.from_pretrained({given})",
        'bundle.predict("Explain quicksort").tokens',
    ]
    yield "\n".join(["```python", *lines, "```"])


def _data(facts: Facts, words: Words) -> Iterator[str]:
    if "data" not in facts:
        return
    data = facts["data"]
    rows, groups = (sum(data[key].values()) for key in ("examples", "groups"))
    yield (
        f"## Training data\n\n{rows:,} (prompt, model) rows over {groups:,} prompts or conversations, "
        f"{data['models']:,} served models by name; prompts and output lengths, no answer texts."
    )
    table = [["source", "rows", "origin", "licence"]]
    for name, count in data["sources"].items():
        known = words.sources.get(name, {})
        table.append(
            [name, f"{count:,}", known.get("origin", "not stated"), known.get("licence", "not stated")]
        )
    yield _table(table)


def _evaluation(facts: Facts) -> Iterator[str]:
    if "evaluation" not in facts:
        return
    found = facts["evaluation"]
    data = found["data"]
    yield (
        f"## Evaluation\n\nThe test part: {data['examples']:,} rows with {data['samples']:,} answers, "
        f"{data['groups']:,} prompts or conversations that training never saw, by the backend "
        f"{facts.get('evaluated_backend', 'torch')}; one training seed ({facts['seed']}). Brackets are 95 % "
        "intervals by bootstrap over conversations."
    )
    table = [["", *METRICS.values()]]
    for column in found["columns"]:
        label = COLUMNS.get(column["name"], column["name"])
        default = " (the default)" if column["name"] == found["default"] else ""
        table.append([label + default, *(_interval(column["metrics"].get(m), m in SHARES) for m in METRICS)])
    yield _table(table)
    yield "\n".join(map(_comparison, found["comparisons"]))
    router = found["buckets"][found["default"]]
    right, score = _interval(router["accuracy"], True), _interval(router["macro_f1"])
    yield f"Router: {right} of the buckets right, macro F1 {score}."


def _comparison(row: Mapping[str, Any]) -> str:
    verdict = "" if row["p_holm"] < 0.05 else ": **no difference is shown**"
    baseline = COLUMNS.get(row["baseline"], row["baseline"])
    return f"- MAE minus that of {baseline}: {_signed(row)}, p after Holm {row['p_holm']:.2g}{verdict}."


def _slices(facts: Facts) -> Iterator[str]:
    if "evaluation" not in facts:
        return
    known = {facts["evaluation"]["by"]: facts["evaluation"]["slices"], **facts.get("slices", {})}
    default = facts["evaluation"]["default"]
    for by in ("source", "bucket"):
        if rows := known.get(by):
            table = [[f"true {by}" if by == "bucket" else by, "answers", "MAE", "MAE of the constant"]]
            for row in rows:
                maes = [_interval(row["mae"].get(name)) for name in (default, "constant")]
                table.append([row["value"], f"{row['samples']:,}", *maes])
            yield f"### Error by {by}\n\n{_table(table)}"


def _calibration(facts: Facts, plot: str) -> Iterator[str]:
    if "evaluation" not in facts:
        return
    table = [["predicted bucket", "answers", "share inside the 80 % interval", "width, tokens"]]
    for row in facts["evaluation"]["coverage"]:
        table.append(
            [row["bucket"], f"{row['samples']:,}", _interval(row["coverage"], True), _interval(row["width"])]
        )
    yield f"### Calibration\n\n{_table(table)}"
    yield f"![share of answers at or below each forecast quantile]({plot})"


def _compute(facts: Facts) -> Iterator[str]:
    if "energy" not in facts:
        return
    energy, cost = facts["energy"], facts["cost"]
    lines = [
        f"- Training: {energy['hours']:.2f} hours on {facts['device']}, threads: {facts['threads']}, wall time.",
        f"- Energy: about {energy['kwh']:.3f} kWh, an estimate and no reading: {energy['method']}, "
        f"{energy['watts']:.0f} W.",
        f"- Peak memory {facts['peak_memory_bytes'] / 1e9:.1f} GB; versions: {_versions(facts)}.",
        f"- Parameters: {_listed(cost['parameters'], ',d')}.",
        f"- Forward FLOPs of a request of {cost['median_tokens']:.0f} tokens: "
        f"{_listed(cost['forward_flops'], '.2e')}.",
    ]
    yield "## Compute\n\n" + "\n".join(lines)


def _exports(facts: Facts) -> Iterator[str]:
    if "export" not in facts:
        return
    found = facts["export"]
    table = [["graphs", "type", "largest difference, tokens", "mean", "mean share"]]
    for row in found["forecasts"]:
        sizes = (
            f"{row['largest_tokens']:.2f}",
            f"{row['mean_tokens']:.3f}",
            f"{100 * row['mean_share']:.2f} %",
        )
        table.append([row["graphs"], row["kind"], *sizes])
    yield (
        f"## ONNX graphs\n\nOpset {found['opset']}, onnxruntime {found['onnxruntime']}. Forecasts of "
        f"{found['prompts']} real prompts against PyTorch's:\n\n{_table(table)}"
    )


def _limits(facts: Facts, words: Words) -> Iterator[str]:
    lines = [filled(text, facts) for text in words.limits] + list(_failures(facts))
    if lines:
        yield "## Limits and failure cases\n\n" + "\n".join(f"- {line}" for line in lines)


def _failures(facts: Facts) -> Iterator[str]:
    """What the evaluation itself shows to go wrong."""
    if "evaluation" not in facts:
        yield "Nothing was measured: this recipe has not been run."
        return
    found = facts["evaluation"]
    for row in found["coverage"]:
        if not AIM[0] <= row["coverage"]["value"] <= AIM[1]:
            yield (
                f"The 80 % interval of prompts predicted {row['bucket']} holds {_interval(row['coverage'], True)} "
                "of the answers: outside the 78 to 82 % aimed at."
            )
    last = found["deciles"][-1]
    yield (
        f"The longest tenth of the answers ({last['low']:.0f} to {last['high']:.0f} tokens) has an MAE of "
        f"{_interval(last['mae'][found['default']])}."
    )
    sources = found["slices"] if found["by"] == "source" else facts.get("slices", {}).get("source", [])
    if sources:
        worst = max(sources, key=lambda row: row["mae"][found["default"]]["value"])
        yield f"Worst source: {worst['value']}, MAE {_interval(worst['mae'][found['default']])}."
    if found["data"]["capped"]:
        capped, samples = found["data"]["capped"], found["data"]["samples"]
        yield f"{capped:,} of {samples:,} test answers were cut at a cap: their true lengths are unknown."


def _again(words: Words) -> Iterator[str]:
    if words.again:
        yield "## Make it again\n\n" + "\n".join(f"    {line}" for line in words.again)


def _citation(words: Words) -> Iterator[str]:
    entry = [
        "@software{mope,",
        "  title = {mope: output length prediction for LLM serving},",
        f"  note = {{{words.title}}}",
        "}",
    ]
    yield "## Citation\n\n" + "\n".join(["```bibtex", *entry, "```"])


def _table(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _interval(found: Mapping[str, float] | None, share: bool = False) -> str:
    if not found or found["value"] is None:
        return "-"
    factor, form, unit = (100, ".1f", " %") if share else (1, ".1f" if abs(found["value"]) > 2 else ".3f", "")
    ends = (
        ""
        if found.get("low") is None
        else f" [{found['low'] * factor:{form}}, {found['high'] * factor:{form}}]"
    )
    return f"{found['value'] * factor:{form}}{unit}{ends}"


def _signed(row: Mapping[str, float]) -> str:
    return f"{row['difference']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"


def _listed(values: Mapping[str, float], form: str) -> str:
    return ", ".join(
        f"{name} {int(value) if form == ',d' else value:{form}}" for name, value in values.items()
    )


def _versions(facts: Facts) -> str:
    return ", ".join(f"{name} {number}" for name, number in facts["versions"].items() if name != "mope-llm")
