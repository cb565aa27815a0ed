"""A hardware profile out of measured points: each part that they speak of is fitted, the rest is borrowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from mope.errors import DataError
from mope.mapper.fit import (
    Errors,
    as_plain,
    fit_decode,
    fit_direct,
    fit_linear,
    fit_link,
    fit_prefill,
    predict_decode,
    predict_direct,
    predict_linear,
    predict_link,
    predict_prefill,
)
from mope.mapper.gpus import Gpu
from mope.mapper.logs import step_points
from mope.mapper.numbers import Floats
from mope.mapper.points import (
    DecodePoints,
    LayerPoints,
    LinkPoints,
    Points,
    PrefillPoints,
    RequestPoints,
    StepPoints,
    count,
    take,
)
from mope.mapper.profile import PARTS, Profile, profile_name
from mope.mapper.shapes import ModelShape
from mope.mapper.steps import Direct, Layered

# Kernel tables go far beyond what an engine runs in one step.
MOST_SEQUENCES = 256
MOST_CONTEXT = 16384
LAYERED = (LayerPoints, DecodePoints, PrefillPoints, LinkPoints)


@dataclass(frozen=True)
class Measured:
    """Points and where they come from, in words that go into the profile."""

    points: Points
    origin: str


def build_profile(
    shape: ModelShape,
    gpu: Gpu,
    tp: int,
    measured: Sequence[Measured],
    *,
    name: str = "",
    donor: Profile | None = None,
    seed: int = 0,
) -> Profile:
    """Fit a profile. Layer tables give a `Layered` law, logs of steps or requests a `Direct` one.

    Parts of a layer without points come from `donor`; without one they keep their defaults.
    Raises `DataError` where there are too few points, or both kinds.
    """
    name = name or profile_name(shape, gpu, tp)
    layered = [isinstance(item.points, LAYERED) for item in measured]
    if all(layered):
        return _layered(shape, gpu, tp, measured, name, donor, seed)
    if any(layered):
        raise DataError("layer tables and engine logs together", "one kind", "fit two profiles and compare")
    return _direct(shape, gpu, tp, measured, name, seed)


def _direct(
    shape: ModelShape, gpu: Gpu, tp: int, measured: Sequence[Measured], name: str, seed: int
) -> Profile:
    found = [(_as_steps(item.points), item.origin) for item in measured]
    if len(found) != 1:
        raise DataError(f"{len(found)} engine logs", "one", "join them into one file")
    points, origin = found[0]
    law, errors = fit_direct(points, seed)
    return Profile(
        name,
        shape,
        gpu,
        tp,
        law,
        True,
        _spread({"steps": errors}),
        {"steps": origin},
        _plain({"steps": errors}),
    )


def _as_steps(points: Points) -> StepPoints:
    if isinstance(points, RequestPoints):
        return step_points(points)
    assert isinstance(points, StepPoints)
    return points


def _layered(
    shape: ModelShape,
    gpu: Gpu,
    tp: int,
    measured: Sequence[Measured],
    name: str,
    donor: Profile | None,
    seed: int,
) -> Profile:
    blank, origin = Layered(shape, gpu, tp), {}
    law = blank
    if donor is not None and isinstance(donor.law, Layered):
        law = replace(donor.law, shape=shape, gpu=gpu, tp=tp)
        origin = dict.fromkeys(PARTS, f"as in {donor.name}")
    errors: dict[str, Errors] = {}
    for item in measured:
        part, value, error = _fit(blank, within(item.points, law), seed)
        law = replace(law, **{part: value})
        origin[part], errors[part] = item.origin, error
    if tp == 1:
        origin.pop("link", None)
    return Profile(name, shape, gpu, tp, law, True, _spread(errors), origin, _plain(errors))


def within(points: Points, law: Layered) -> Points:
    """The points that an engine can meet: 256 sequences, 16,384 tokens each or in a step."""
    if isinstance(points, DecodePoints):
        return take(
            points, (points.batch <= MOST_SEQUENCES) & (points.context <= MOST_CONTEXT) & _held(points, law)
        )
    if isinstance(points, PrefillPoints):
        step = points.batch * points.tokens
        return take(points, (step <= MOST_CONTEXT) & (points.tokens + points.prefix <= MOST_CONTEXT))
    return points


def _held(points: DecodePoints, law: Layered) -> Any:
    """Where the whole memory of the GPUs could hold the batch's cache."""
    room = law.gpu.memory_bytes / (law.token_bytes * law.shape.layers)
    return points.batch * points.context <= room


def predicted(profile: Profile, points: Points) -> tuple[Floats, Floats]:
    """(what the profile says, what was measured) in seconds, of points like those it was fitted to."""
    law = profile.law
    if isinstance(law, Direct):
        steps = _as_steps(points)
        return predict_direct(law, steps), steps.seconds
    points = within(points, law)
    if isinstance(points, LayerPoints):
        return predict_linear(law, law.linear, points), points.seconds
    if isinstance(points, DecodePoints):
        return predict_decode(law, law.attention, points), points.seconds
    if isinstance(points, PrefillPoints):
        return predict_prefill(law, law.reading, points), points.seconds
    assert isinstance(points, LinkPoints)
    return predict_link(law, law.link, points), points.seconds


def _fit(law: Layered, points: Points, seed: int) -> tuple[str, Any, Errors]:
    if count(points) == 0:
        raise DataError("no points within 256 sequences and 16,384 tokens", "some")
    if isinstance(points, LayerPoints):
        return "linear", *fit_linear(law, points, seed)
    if isinstance(points, DecodePoints):
        return "attention", *fit_decode(law, points, seed)
    if isinstance(points, PrefillPoints):
        return "reading", *fit_prefill(law, points, seed)
    assert isinstance(points, LinkPoints)
    return "link", *fit_link(law, points, seed)


# What an engine adds to the sum of its kernels, seen in end-to-end runs (docs/profiles.md).
LEAST_SPREAD = 0.15


def _spread(errors: dict[str, Errors]) -> float:
    """Half-width of a time's 80 % interval: what holds 80 % of the held-out points, and no less than 0.15."""
    main = next((errors[part] for part in ("linear", "steps") if part in errors), None)
    return round(max(LEAST_SPREAD, main.inside.p80 if main else 0.0), 3)


def _plain(errors: dict[str, Errors]) -> dict[str, Any]:
    return {part: as_plain(error) for part, error in errors.items()}
