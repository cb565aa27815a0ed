"""What the scheduler did for each client, as values and as Prometheus text. Reads, never decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from mope.equinox.counters import GRAIN
from mope.equinox.state import ADMITTED, TALLY, Account

if TYPE_CHECKING:
    from mope.equinox.steps import Steps

KINDS = {name: float if name in ("error_tokens", "waited_s", "waited_max_s") else int for name in TALLY}


@dataclass(frozen=True, slots=True)
class ClientMetrics:
    """One client. Tokens count closed requests; waits are from submission to first admission, in seconds.

    `error_tokens` is the sum of |predicted - actual| over finished requests; `fallbacks` counts admissions
    without a usable forecast.
    """

    client: str
    weight: float
    user_counter: float
    resource_counter: float
    waiting: int
    running: int
    admitted: int
    finished: int
    cancelled: int
    requeued: int
    refused: int
    prompt_tokens: int
    output_tokens: int
    waited_s: float
    waited_max_s: float
    error_tokens: float
    fallbacks: int


@dataclass(frozen=True, slots=True)
class Metrics:
    """All clients the scheduler knows now. `dropped` is how many requests of dropped idle clients were admitted.

    `jain` is Jain's index of served tokens by weight, (sum x)^2 / (n sum x^2) with
    x = (prompt + output tokens) / weight over the clients that were served.
    """

    clients: tuple[ClientMetrics, ...]
    waiting: int
    running: int
    dropped: int
    jain: float


def measure(steps: Steps) -> Metrics:
    """The metrics of a scheduler, clients in the order they came."""
    clients = tuple(_client(account) for account in steps.accounts.by_name.values())
    served = [(one.prompt_tokens + one.output_tokens) / one.weight for one in clients]
    waiting = len(steps.jobs) - steps.running
    return Metrics(clients, waiting, steps.running, int(steps.accounts.dropped[ADMITTED]), jain_index(served))


def _client(account: Account) -> ClientMetrics:
    return ClientMetrics(
        client=account.name,
        weight=account.weight,
        user_counter=account.user / GRAIN,
        resource_counter=account.resource / GRAIN,
        waiting=account.waiting,
        running=account.running,
        **_tally(account),
    )


def _tally(account: Account) -> dict[str, Any]:
    return {name: kind(value) for (name, kind), value in zip(KINDS.items(), account.tally, strict=True)}


def jain_index(amounts: Iterable[float]) -> float:
    """(sum x)^2 / (n sum x^2) over the positive amounts: 1 all equal, 1/n one has all; 1 for none (Jain, 1984)."""
    positive = [amount for amount in amounts if amount > 0]
    if not positive:
        return 1.0
    largest = max(positive)
    shares = [amount / largest for amount in positive]
    return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))


def prometheus_text(metrics: Metrics, prefix: str = "mope_equinox") -> str:
    """The metrics in Prometheus' text format: one gauge for each number, with the client as a label."""
    lines: list[str] = []
    for name in (item.name for item in fields(ClientMetrics) if item.name != "client"):
        lines.append(f"# TYPE {prefix}_{name} gauge")
        for one in metrics.clients:
            lines.append(f'{prefix}_{name}{{client="{_escaped(one.client)}"}} {getattr(one, name):g}')
    for name in ("waiting", "running", "dropped", "jain"):
        total = f"{prefix}_all_{name}"
        lines += [f"# TYPE {total} gauge", f"{total} {getattr(metrics, name):g}"]
    return "\n".join(lines) + "\n"


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
