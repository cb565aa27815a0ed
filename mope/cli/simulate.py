"""`mope simulate`: what a policy does to clients, on a scenario or a trace, before it is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mope.sim.run import RunConfig
    from mope.sim.scenario import Scenario


def simulate(
    scenario: Annotated[
        str,
        typer.Argument(
            metavar="SCENARIO",
            help="GROUP/NAME of one that ships (vtc/overload), FILE.toml, FILE.toml:NAME, or a trace (CSV, JSONL,"
            " parquet).",
        ),
    ],
    policy: Annotated[
        str, typer.Option(help="Policies, separated by commas: fcfs, rpm:20, vtc, vtc:oracle, equinox.")
    ] = "fcfs,vtc,equinox",
    predictor: Annotated[
        str,
        typer.Option(
            help="Length predictors: exact, none, noise:80 (tokens of mean error), noise:50%, confusion:FILE (a"
            " classifier's bounds and confusion matrix as JSON, a bundle's facts.json, or bert-lmsys), table:FILE (a"
            " CSV of forecasts), or a bundle (folder, Hub id, or shipped) that reads the trace's column prompt."
        ),
    ] = "noise:80",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with seeds from --first-seed on.")] = 1,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    hardware: Annotated[
        str | None, typer.Option(metavar="NAME", help="MODEL@[Nx]GPU or a profile file, in place of its own.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A server setting: loop=slora, pool_tokens=10000."),
    ] = None,
    scheduler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A scheduler setting: bypass_limit=0, quantile=0.5 (KV memory kept for it).",
        ),
    ] = None,
    clients: Annotated[
        str | None, typer.Option(help="For a trace: who sent what. trace, equal:N or zipf:N[:EXPONENT].")
    ] = None,
    speed: Annotated[
        float | None, typer.Option(help="For a trace: let requests come so much faster.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="For a trace: Poisson arrivals, so many a second, of its rows drawn at random."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Stop after so many requests.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of logs and results; a run that was killed goes on there.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Run a made-up server under each policy, predictor and seed, and compare them.

    Intervals are 95 % over seeds. "diff" is VTC's service difference in windows of 60 s (tokens a second).
    """
    from contextlib import ExitStack
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from mope.cli.foretold import foretold
    from mope.cli.running import print_json
    from mope.errors import ConfigError
    from mope.sim.run_report import compare
    from mope.sim.scenario import load_scenario
    from mope.sim.table import rows

    if output is not None and output.exists() and not output.is_dir():
        raise ConfigError(f"--output {output}", "a folder")
    found = _changed(
        load_scenario(scenario),
        hardware,
        set_ or [],
        {"clients": clients, "speed": speed, "rate": rate},
        limit,
    )
    configs = _configs(policy, predictor, range(first_seed, first_seed + seeds), scheduler or [])
    with ExitStack() as stack:
        folder = output or Path(stack.enter_context(TemporaryDirectory()))
        words = {one.predictor: "" for one in configs}
        words = {word: foretold(word, found, folder) for word in words}
        configs = [replace(one, predictor=words[one.predictor]) for one in configs]
        runs = [_run(found, config, output) for config in configs]
    results: dict[str, Any] = {
        "scenario": found.name,
        "hardware": Path(found.hardware).name,
        "table": rows(runs),
        "compared": compare(runs),
    }
    if output is not None:
        _write(output, found, {**results, "runs": runs}, configs)
    if as_json:
        print_json({**results, "runs": runs})
    else:
        _print(found, results["table"])


def _changed(
    scenario: Scenario,
    hardware: str | None,
    settings: list[str],
    of_trace: dict[str, Any],
    limit: int | None,
) -> Scenario:
    """The scenario with what the flags say in place of its own."""
    from dataclasses import replace

    from mope.errors import ConfigError
    from mope.settings import parse_settings
    from mope.sim.server import ServerConfig

    server = replace(scenario.server, **parse_settings(settings, ServerConfig))
    trace = scenario.trace
    given = {key: value for key, value in of_trace.items() if value is not None}
    if trace is None and given:
        raise ConfigError(f"--{next(iter(given))} with a scenario of its own clients", "it with a trace only")
    if trace is not None:
        trace = replace(trace, **given)
    return replace(
        scenario,
        server=server,
        trace=trace,
        hardware=hardware or scenario.hardware,
        requests=scenario.requests if limit is None else limit,
    )


def _configs(policy: str, predictor: str, seeds: range, scheduler: list[str]) -> list[RunConfig]:
    from mope.equinox import AdmissionConfig, Priors, make_policy
    from mope.errors import ConfigError
    from mope.settings import parse_settings
    from mope.sim.run import RunConfig

    policies = _split(policy)
    for word in policies:
        make_policy(word)
    predictors = [word.strip() for word in predictor.split(",") if word.strip()]
    if not policies or not predictors:
        raise ConfigError("no policy or no predictor", "at least one of each")
    kinds = (AdmissionConfig, Priors)
    known = {key: kind for kind in kinds for key in kind.__dataclass_fields__}
    mine = {kind: [pair for pair in scheduler if known.get(pair.partition("=")[0]) is kind] for kind in kinds}
    for pair in scheduler:
        if pair.partition("=")[0] not in known:
            raise ConfigError(f"--scheduler {pair}", f"KEY=VALUE, one of {', '.join(known)}")
    admission = AdmissionConfig(**parse_settings(mine[AdmissionConfig], AdmissionConfig))
    priors = Priors(**parse_settings(mine[Priors], Priors))
    return [
        RunConfig(p, q, seed, admission=admission, priors=priors)
        for p in policies
        for q in predictors
        for seed in seeds
    ]


def _split(words: str) -> list[str]:
    """Policies; `equinox:alpha=0.5,beta=0.5` is one of them: a part with = belongs to the one before."""
    found: list[str] = []
    for part in (part.strip() for part in words.split(",") if part.strip()):
        if found and "=" in part and ":" not in part:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def _run(scenario: Scenario, config: RunConfig, output: Path | None) -> dict[str, Any]:
    from mope.sim.run import simulate_as, simulate_in

    def watch(count: int, now: float) -> None:
        typer.echo(f"  {config.name}: {count:,} requests, {now:,.0f} s", err=True)

    typer.echo(f"{scenario.name} {config.name}", err=True)
    if output is None:
        summary = simulate_as(scenario, config).summary
    else:
        summary = simulate_in(output / "runs" / config.name, scenario, config, watch)
    return {
        "scenario": scenario.name,
        "policy": config.policy,
        "predictor": config.predictor_name,
        "seed": config.seed,
        "summary": summary,
    }


def _write(output: Path, scenario: Scenario, results: dict[str, Any], configs: list[RunConfig]) -> None:
    """results.json, the resolved config and, where it can be drawn, report.html."""
    import json
    from dataclasses import asdict

    from mope.errors import MissingExtra
    from mope.files import write_text
    from mope.sim.run_report import write

    for name, value in (("results.json", results), ("config.json", asdict(scenario))):
        write_text(output / name, json.dumps(value, indent=1, default=str) + "\n")
    try:
        typer.echo(str(write(output, scenario, configs, results)), err=True)
    except MissingExtra as missing:
        typer.echo(f"no report.html: {missing}", err=True)


def _print(scenario: Scenario, found: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from mope.cli.running import table_console
    from mope.sim.table import SHOWN

    table = Table("policy", "predictor", "seeds", box=None, header_style="bold")
    for name in SHOWN.values():
        table.add_column(name, justify="right", no_wrap=True)
    for row in found:
        cells = [_cell(row[key]) for key in SHOWN]
        table.add_row(row["policy"], row["predictor"], str(row["seeds"]), *cells)
    table_console(180).print(table)
    title = f": {scenario.title}" if scenario.title else ""
    typer.echo(f"{scenario.name}{title}; {scenario.server.loop} loop on {Path(scenario.hardware).name}")


def _cell(value: dict[str, float] | None) -> str:
    if value is None:
        return ""
    digits = 1 if abs(value["value"]) >= 100 else 3 if abs(value["value"]) < 10 else 2
    reach = (value["high"] - value["low"]) / 2
    text = f"{value['value']:.{digits}f}"
    return text if reach == 0 else f"{text} +-{reach:.{digits}f}"
