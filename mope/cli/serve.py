"""`mope serve`: a fair proxy before an OpenAI-compatible server, and forecasts and tags over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    upstream: Annotated[
        str, typer.Option(help="The server behind, as in http://localhost:8000.", show_default=False)
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8700,
    tags: Annotated[
        str,
        typer.Option(help="Hold nobody back, send priorities to: vllm, sglang, sglang-high-first."),
    ] = "",
    gate: Annotated[
        list[str] | None, typer.Option("--gate", help="slots=64, tokens=..., max_waiting=..., wait_s=...")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="policy=equinox, deadline_ms=20, ...")
    ] = None,
    weight: Annotated[list[str] | None, typer.Option(help="TENANT=SHARE, repeated.")] = None,
    tenant_from: Annotated[
        str, typer.Option(help="header:NAME, key (hashed), user, model; the first that is there.")
    ] = "header:x-tenant-id,key,user",
    predictor: Annotated[
        str, typer.Option(help="A bundle: folder, Hub id or shipped; none: forecast nothing.")
    ] = "shipped",
) -> None:
    """Stand before a server so that no tenant starves another; the OpenAI API stays as it is."""
    from dataclasses import replace

    from mope.errors import ConfigError
    from mope.extras import require
    from mope.server import ServeConfig
    from mope.server import serve as run
    from mope.serving_adapters.asgi import MiddlewareConfig
    from mope.serving_adapters.dialects import dialect
    from mope.serving_adapters.gate import GateConfig
    from mope.serving_adapters.settings import Settings
    from mope.settings import apply_settings, parse_settings

    if tags:
        dialect(tags)
    weights: dict[str, float] = {}
    for pair in weight or []:
        name, _, share = pair.rpartition("=")
        try:
            weights[name] = float(share)
        except ValueError:
            raise ConfigError(f"--weight {pair!r}", "TENANT=SHARE, as in gold=2") from None
    settings = Settings.from_environment()
    settings = apply_settings(settings, parse_settings(setting or [], Settings))
    settings = replace(
        settings,
        weights={**settings.weights, **weights},
        predictor="" if predictor == "none" else settings.predictor or predictor,
    )
    carriers = tuple(word.strip() for word in tenant_from.split(",") if word.strip())
    config = ServeConfig(
        upstream, host, port, tags,
        apply_settings(GateConfig(), parse_settings(gate or [], GateConfig)),
        settings,
        MiddlewareConfig(tenant_from=carriers, metrics_path="/metrics"),
    )  # fmt: skip
    require("serve", "mope serve")
    mode = f"tags for {tags}" if tags else f"a gate of {config.gate.slots} slots"
    typer.echo(f"http://{host}:{port} -> {upstream}, {mode}, policy {settings.policy}", err=True)
    run(config)
