"""One part's forecasts: columns for the rows that could be predicted, a reason for each of the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mope.bulk.answers import Answer, Columns
from mope.bulk.source import Part
from mope.data.prompts import prompt_request
from mope.data.shapes import Shape
from mope.data.values import Refused
from mope.errors import BadInput, ConfigError, PromptError
from mope.predictor.text import MAX_PROMPT_CHARS, check_prompt
from mope.types import Request

ROW, ERROR = "row", "error"


@dataclass(frozen=True, eq=False)
class Shard:
    """n rows from row `first` on, in `errors` [n] with "" where there is none.

    `columns` [m] each, of the m rows of the shard that stand at `places` [m].
    """

    first: int
    errors: list[str]
    places: NDArray[np.int64]
    columns: Columns
    carried: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.errors)


def forecast_part(
    part: Part, shape: Shape, answer: Answer, model: str | None = None, max_tokens: int | None = None
) -> Shard:
    """All rows of a part in one call of `answer`: a row's forecast may depend on its neighbours in a batch."""
    errors, requests, places = [], [], []
    for place, row in enumerate(part.rows):
        found = row if isinstance(row, str) else _request(row, shape, model, max_tokens)
        errors.append(found if isinstance(found, str) else "")
        if not isinstance(found, str):
            requests.append(found)
            places.append(place)
    columns = checked(answer(requests), len(requests))
    return Shard(part.first, errors, np.array(places, np.int64), columns, part.carried)


def checked(columns: Columns, rows: int) -> Columns:
    """Columns of one value a row; raises `ConfigError` for others, which a plug-in may give."""
    for name, values in columns.items():
        if values.shape != (rows,):
            raise ConfigError(
                f"a column {name!r} of shape {values.shape}", f"one value for each of {rows} rows"
            )
    return columns


def check_names(columns: Columns, carried: tuple[str, ...]) -> None:
    """Raise `BadInput` where a column that is carried through would stand twice."""
    twice = sorted({ROW, ERROR, *columns} & set(carried))
    if twice:
        raise BadInput(
            f"the input's column {twice[0]!r} to carry through, which the forecast has too",
            f"columns other than {', '.join([ROW, *columns, ERROR])}",
            "rename it in the input, or carry others",
        )


def _request(
    row: Mapping[str, object], shape: Shape, model: str | None, max_tokens: int | None
) -> Request | str:
    """The request of a row, or a short reason that is the same for all rows of its kind."""
    try:
        request = prompt_request(row, shape, model, max_tokens)
        check_prompt(request.prompt)
    except Refused as why:
        return why.reason
    except PromptError:
        long = len(request.prompt) > MAX_PROMPT_CHARS
        return f"prompt has more than {MAX_PROMPT_CHARS:,} characters" if long else "prompt is binary"
    return request
