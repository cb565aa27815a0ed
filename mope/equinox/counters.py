"""The formulas of the counters. Each is one function: symbols, formula and source in its docstring.

Symbols used throughout
    n_in, n_out   prompt and output tokens of a request
    k_in, k_out   weight of one of each
    w             weight of the client; larger means more service
    L             seconds the client felt the request take
    TPS, U        output tokens per second of the request; share of the hardware in [0, 1]
    UFC, RFC      user and resource fairness counter: sums of u and v over a client's requests
    N_u, N_r      constants of the deployment that make the two comparable
"""

from __future__ import annotations

# Counters are integers of 2**-64: `int(charge * GRAIN)`. Integers add in any order and are taken back without
# a rest, so a counter is the exact sum of its charges however they were refunded. A charge from 2**-12 up is
# held without rounding, a smaller one to 2**-64.
GRAIN = 2.0**64
SCORE_BITS = 64


def weighted_tokens(n_in: float, n_out: float, k_in: float, k_out: float) -> float:
    """T = k_in n_in + k_out n_out. VTC's service with k_in = 1, k_out = 2 (VTC, section 3)."""
    return k_in * n_in + k_out * n_out


def profiled_cost(x: float, y: float) -> float:
    """h(x, y) = 0.210 x + 0.101 y + 0.00399 xy + 0.00325 y^2 + 1.146, x prompt and y output tokens.

    Milliseconds of Llama-7b on an A10G as fitted by VTC's authors (VTC-artifact, `profile` cost function).
    """
    return 0.21001891 * x + 0.10075395 * y + 0.0039868 * x * y + 0.00324733 * y * y + 1.14601454


def user_charge(tokens: float, w: float, delta: float, felt_s: float) -> float:
    """u = T / (w (1 + delta L)). Ingredients and delta = 0.1: Equinox, section 3.1; the shape is our reading."""
    return tokens / (w * (1 + delta * felt_s))


def felt_at_head(head_s: float, queued_s: float, service_s: float) -> float:
    """L = seconds at the head of the client's own queue + seconds of service. Our reading, the default.

    Waiting behind one's own requests is left out: it would make a longer backlog cheaper.
    """
    return head_s + service_s


def felt_since_arrival(head_s: float, queued_s: float, service_s: float) -> float:
    """L = all seconds in the queue + seconds of service. The literal reading of latency."""
    return queued_s + service_s


def resource_rate(service_s: float, tps: float, util: float, w: float) -> float:
    """v = TPS U / w: what serving the request yields. Ingredients: Equinox, section 3.2; shape: our reading."""
    return tps * util / w


def resource_work(service_s: float, tps: float, util: float, w: float) -> float:
    """v = S U / w, S seconds of service: device-seconds the request takes. The other form, ours."""
    return service_s * util / w


def score_factors(alpha: float, beta: float, n_u: float, n_r: float) -> tuple[int, int]:
    """A = alpha / N_u and B = beta / N_r as integers of 2**-64, so that scores are exact too."""
    return int(alpha / n_u * 2.0**SCORE_BITS), int(beta / n_r * 2.0**SCORE_BITS)


def holistic_score(user: int, resource: int, a: int, b: int) -> int:
    """HF = alpha UFC / N_u + beta RFC / N_r in units of 2**-128 (Equinox, section 3.3, Eq. 3.3; alpha = 0.7).

    A sum of integers: two clients compare as their counters do, never as a rounding does.
    """
    return user * a + resource * b
