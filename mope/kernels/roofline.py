"""The least a pass can take, from shapes alone: operations, bytes, launches, and the time on a card's datasheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LAUNCHES_A_LAYER = 5
LAUNCHES_BESIDE = 2  # embeddings and heads
HALF, FULL = 2, 4  # bytes of a 16-bit number, of an FP32 number


@dataclass(frozen=True)
class Card:
    """Dense BF16 operations and bytes a second, as the datasheet has them."""

    flops_s: float
    bytes_s: float


CARDS = {
    "A100-40GB": Card(312e12, 1.555e12),
    "A100-80GB": Card(312e12, 2.039e12),
    "H100-SXM": Card(989e12, 3.35e12),
    "H200": Card(989e12, 4.8e12),
    "MI300X": Card(1307e12, 5.3e12),
}


@dataclass(frozen=True)
class Work:
    """What an operation must do: floating-point operations, bytes to and from memory, launches."""

    flops: float = 0.0
    bytes: float = 0.0
    launches: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.launches + other.launches)

    def __mul__(self, times: int) -> Work:
        return Work(self.flops * times, self.bytes * times, self.launches * times)

    def floor_us(self, card: Card) -> float:
        """The larger of both times, in microseconds: perfect overlap, no launch cost."""
        return 1e6 * max(self.flops / card.flops_s, self.bytes / card.bytes_s)


@dataclass(frozen=True)
class Shape:
    """An encoder and its experts: `shared` of `layers` are run once for all of them."""

    width: int
    layers: int
    inner: int
    experts: int = 3
    shared: int = 0
    hidden: int = 256  # of the head
    features: int = 160  # what the head reads beside the text


def linear(tokens: int, n: int, k: int, experts: int, residual: bool = False) -> Work:
    """tokens x k through weights n x k; every expert's weights are read once, the residual's row with its result."""
    moved = experts * (n * k * HALF + n * FULL) + tokens * (k + n * (2 if residual else 1)) * HALF
    return Work(2.0 * tokens * n * k, moved, 1)


def attention(lengths: Sequence[int], width: int) -> Work:
    """Scores and their sums, 4 L^2 H operations a sequence; q, k, v are read once and the result written once."""
    squares = sum(length * length for length in lengths)
    return Work(4.0 * squares * width, 4 * sum(lengths) * width * HALF, 1)


def layer(lengths: Sequence[int], shape: Shape, experts: int) -> dict[str, Work]:
    """The five launches of a layer over these sequences, by name."""
    tokens, h, inner = sum(lengths), shape.width, shape.inner
    return {
        "qkv": linear(tokens, 3 * h, h, experts),
        "attention": attention(lengths, h),
        "out": linear(tokens, h, h, experts, residual=True),
        "up": linear(tokens, inner, h, experts),
        "down": linear(tokens, h, inner, experts, residual=True),
    }


def operations(lengths: Sequence[int], shape: Shape, experts_a_text: int) -> dict[str, Work]:
    """All work of a pass by name; each text goes through `experts_a_text` of the experts (3: soft routing)."""
    tower = [length for length in lengths for _ in range(experts_a_text)]
    # Hard routing reads the weights of the experts that some text goes to: at most one a text.
    read = min(shape.experts, experts_a_text * len(lengths))
    found: dict[str, Work] = {}
    for depth, sequences, experts in ((shape.shared, lengths, 1), (shape.layers - shape.shared, tower, read)):
        for name, work in layer(sequences, shape, experts).items():
            found[name] = found.get(name, Work()) + work * depth
    embedded = sum(lengths) if shape.shared else sum(tower)
    found["embed"] = Work(0.0, 3 * embedded * shape.width * HALF + embedded * shape.width * HALF, 1)
    joined = 2 * shape.width + shape.features
    head = Work(2.0 * len(tower) * shape.hidden * joined, read * shape.hidden * joined * FULL, 1)
    found["head"] = head + Work(0.0, sum(tower) * shape.width * HALF)
    return found


def report(lengths: Sequence[int], shape: Shape, experts_a_text: int) -> dict[str, object]:
    """Launches, operations and bytes of a pass, and the floor on every card: the sum of its operations' floors."""
    found = operations(lengths, shape, experts_a_text)
    total = sum(found.values(), Work())
    floors = {name: sum(w.floor_us(card) for w in found.values()) for name, card in CARDS.items()}
    return {
        "launches": total.launches,
        "gflops": total.flops / 1e9,
        "megabytes": total.bytes / 1e6,
        "floor_us": {name: round(value, 1) for name, value in floors.items()},
        "bound_by": {
            name: "compute" if total.flops / card.flops_s > total.bytes / card.bytes_s else "memory"
            for name, card in CARDS.items()
        },
    }
