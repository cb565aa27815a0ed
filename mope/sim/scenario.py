"""Scenarios: who sends what to which server, as TOML. Those that ship are named GROUP/NAME, as `vtc/overload`.

    hardware = "llama-2-7b@a10g"
    duration_s = 360
    [server]
    loop = "chunked"
    [[clients]]
    name = "steady"
    rate = 1.5                    # or on_off, ramp, diurnal, or phases = [{rate = 1.5, for_s = 300}, ...]
    arrivals = "poisson"          # or "even" or "gamma:CV"
    prompt_tokens = 256           # or {uniform = [16, 511]} or {lognormal = [median, sigma, low, high]}
    output_tokens = 256

In place of clients a `[trace]`: file, clients (trace, equal:N, zipf:N or zipf:N:EXPONENT), speed, limit.
A file with `[scenario.NAME]` tables holds several, which take what stands at its top as given.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.resources import files
from math import inf, isfinite
from pathlib import Path
from typing import Any

from mope.errors import ConfigError
from mope.sim import vtc
from mope.sim.arrivals import Piece
from mope.sim.sequence import Arrival
from mope.sim.server import ServerConfig
from mope.sim.traces import TraceConfig
from mope.sim.workload import PIECES, ClientLoad, Lengths, mixed, pieces_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEYS = ("title", "hardware", "duration_s", "requests", "declared", "draws", "server", "clients", "trace")
CLIENT_KEYS = ("name", "copies", "weight", "arrivals", "prompt_tokens", "output_tokens", "phases", "rate")
DEFAULT_HARDWARE = "llama-2-7b@a100-80g"


@dataclass(frozen=True)
class Scenario:
    """A workload and a server. `declared`: exact where requests ask for just the tokens they make, else none.

    `draws`: own, or vtc for arrivals as that study's script draws them."""

    name: str
    title: str = ""
    hardware: str = DEFAULT_HARDWARE
    duration_s: float = inf
    requests: int | None = None
    declared: str = "none"
    draws: str = "own"
    server: ServerConfig = field(default_factory=ServerConfig)
    clients: tuple[ClientLoad, ...] = ()
    trace: TraceConfig | None = None

    def __post_init__(self) -> None:
        if bool(self.clients) == (self.trace is not None):
            raise ConfigError(f"{self.name}: clients and trace", "[[clients]] or [trace], one of them")
        if self.draws not in ("own", "vtc"):
            raise ConfigError(f"{self.name}: draws = {self.draws!r}", "own or vtc")
        if self.declared not in ("exact", "none"):
            raise ConfigError(f"{self.name}: declared = {self.declared!r}", "exact or none")
        if not self.duration_s > 0 or (self.requests is not None and self.requests < 1):
            raise ConfigError(f"{self.name}: duration_s, requests", "both above 0")
        if self.clients and self.duration_s == inf and self.requests is None:
            raise ConfigError(
                f"{self.name}: neither duration_s nor requests", "one of them: clients never stop"
            )
        names = [client.name for client in self.clients]
        if len(set(names)) < len(names):
            raise ConfigError(f"{self.name}: two clients of one name", "different names")

    def arrivals(self, seed: int) -> Iterator[Arrival]:
        """Its requests in the order of arrival."""
        if self.trace is not None:
            return self.trace.arrivals(seed, self.declared, self.duration_s, self.requests)
        if self.draws == "vtc":
            return vtc.arrivals(self.clients, self.duration_s, seed)
        return mixed(self.clients, seed, self.declared, self.duration_s, self.requests)

    @property
    def weights(self) -> dict[str, float]:
        """Weights of clients that are not 1."""
        return {client.name: client.weight for client in self.clients if client.weight != 1.0}


def load_scenario(name: str) -> Scenario:
    """A scenario that ships, a TOML file or one of it as FILE.toml:NAME, or a trace. Raises `BadInput`."""
    path, _, chosen = name.rpartition(":") if ".toml:" in name else (name, "", "")
    if path.endswith(".toml"):
        return _pick(_read(Path(path)), path, chosen, Path(path).parent)
    group, _, chosen = name.partition("/")
    if f"{group}.toml" in _shipped_files():
        home = Path(str(files("mope.sim").joinpath("scenarios")))
        return _pick(_read(home / f"{group}.toml"), group, chosen, home)
    if Path(name).exists():
        return Scenario(name, trace=TraceConfig(name))
    raise ConfigError(f"scenario {name!r}", f"a .toml file, a trace, or one of {', '.join(scenario_names())}")


def scenario_names() -> list[str]:
    """The scenarios that ship."""
    found = []
    for file in _shipped_files():
        data = tomllib.loads(files("mope.sim").joinpath("scenarios", file).read_text("utf-8"))
        found += [f"{file[:-5]}/{name}" for name in data["scenario"]]
    return found


def _shipped_files() -> list[str]:
    home = files("mope.sim").joinpath("scenarios")
    return sorted(item.name for item in home.iterdir() if item.name.endswith(".toml"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}", "a TOML file") from None


def _pick(data: dict[str, Any], origin: str, chosen: str, home: Path) -> Scenario:
    several = data.pop("scenario", None)
    if several is None:
        if chosen:
            raise ConfigError(f"{origin} has no scenario {chosen!r}", f"{origin} alone")
        return parse_scenario(data, Path(origin).stem, home)
    if chosen not in several:
        raise ConfigError(f"scenario {chosen!r} of {origin}", f"one of {', '.join(several)}")
    own = several[chosen]
    server = {**data.get("server", {}), **own.get("server", {})}
    joined = {**data, **own, **({"server": server} if server else {})}
    return parse_scenario(joined, f"{origin.removesuffix('.toml')}/{chosen}", home)


def parse_scenario(data: Mapping[str, Any], name: str, home: Path | None = None) -> Scenario:
    """A scenario from a TOML table; `ConfigError` names the key that is wrong."""
    _known(data, KEYS, name)
    home = home or Path()
    plain = {key: data[key] for key in ("title", "hardware", "requests", "declared", "draws") if key in data}
    if str(plain.get("hardware", "")).endswith(".json"):
        plain["hardware"] = str(home / plain["hardware"])
    duration = data.get("duration_s", inf)
    if not isinstance(duration, int | float) or isinstance(duration, bool):
        raise ConfigError(f"{name}: duration_s = {duration!r}", "seconds")
    clients = [one for table in data.get("clients", []) for one in _clients(table, name)]
    trace = None if "trace" not in data else TraceConfig.of(data["trace"], name, home)
    return Scenario(
        name,
        duration_s=float(duration),
        server=_server(data.get("server", {}), name),
        clients=tuple(clients),
        trace=trace,
        **plain,
    )


def _server(table: Mapping[str, Any], name: str) -> ServerConfig:
    _known(table, tuple(item.name for item in fields(ServerConfig)), f"{name}: server")
    try:
        return ServerConfig(**table)
    except TypeError as error:
        raise ConfigError(
            f"{name}: server: {error}", "numbers and words as `ServerConfig` has them"
        ) from None


def _clients(table: Mapping[str, Any], origin: str) -> list[ClientLoad]:
    _known(table, (*CLIENT_KEYS, *PIECES), f"{origin}: client")
    name, copies = str(table.get("name", "client")), table.get("copies", 1)
    if not isinstance(copies, int) or copies < 1:
        raise ConfigError(f"{origin}: client {name!r}: copies = {copies!r}", "a whole number from 1")
    weight = table.get("weight", 1.0)
    if not isinstance(weight, int | float) or not (isfinite(weight) and weight > 0):
        raise ConfigError(f"{origin}: client {name!r}: weight = {weight!r}", "a number above 0")
    names = [name] if copies == 1 else [f"{name}-{i}" for i in range(1, copies + 1)]
    pieces = tuple(_pieces(table, name))
    cv = _cv(str(table.get("arrivals", "poisson")), name)
    prompt, output = (Lengths.of(table.get(key, 256)) for key in ("prompt_tokens", "output_tokens"))
    return [ClientLoad(one, pieces, cv, prompt, output, float(weight)) for one in names]


def _pieces(table: Mapping[str, Any], name: str) -> list[Piece]:
    if "phases" in table:
        return [piece for phase in table["phases"] for piece in _phase(dict(phase), name)]
    given = {key: value for key, value in table.items() if key in PIECES}
    if "rate" in table:
        given["steady"] = table["rate"]
    return pieces_of(given, name)


def _phase(phase: dict[str, Any], name: str) -> list[Piece]:
    """The pieces of a phase, repeated and cut to its length."""
    for_s = phase.pop("for_s", None)
    if not isinstance(for_s, int | float) or not for_s > 0:
        raise ConfigError(f"client {name!r}: phase {phase}", "for_s = seconds above 0")
    pieces, left = _pieces(phase, name), float(for_s)
    found: list[Piece] = []
    while left > 1e-9:
        for piece in pieces:
            if piece.seconds >= left:
                slope = (piece.last - piece.first) / piece.seconds if piece.seconds < inf else 0.0
                return [*found, Piece(left, piece.first, piece.first + slope * left)]
            found.append(piece)
            left -= piece.seconds
    return found


def _cv(word: str, name: str) -> float:
    kind, _, number = word.partition(":")
    try:
        cv = {"even": 0.0, "poisson": 1.0}[kind] if kind != "gamma" else float(number)
    except (KeyError, ValueError):
        cv = -1.0
    if not 0 <= cv < 100 or (kind == "gamma" and cv == 0):
        raise ConfigError(f"client {name!r}: arrivals = {word!r}", "even, poisson or gamma:CV")
    return cv


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise ConfigError(f"{where}: key {key!r}", f"one of {', '.join(keys)}")
