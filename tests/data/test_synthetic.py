from __future__ import annotations

import numpy as np
import pytest

from mope.data.split import Bounds, split
from mope.data.synthetic import synthetic


@pytest.mark.parametrize("n", [0, 1, 64])
def test_as_many_as_asked_for_and_a_prefix_of_more(n: int) -> None:
    data = synthetic(n, seed=3)
    assert len(data) == n
    assert data.examples == synthetic(100, seed=3).examples[:n]


def test_seeds_differ_in_rows_and_groups() -> None:
    one, two = synthetic(50, 1), synthetic(50, 2)
    assert one.digest() != two.digest()
    assert not set(one.groups) & set(two.groups)


def test_histories_follow_the_conversation() -> None:
    seen: dict[str, list[int]] = {}
    for example in synthetic(200, 0).examples:
        history = example.request.history
        assert history.lengths == tuple(seen.setdefault(example.group, []))
        assert history.turn == len(history.prompts) == len(history.lengths)
        seen[example.group].append(example.lengths[0])
    assert max(map(len, seen.values())) == 5


def test_the_prompt_and_the_history_tell_the_length() -> None:
    data = synthetic(4000, 0)
    logs = np.log(data.lengths)
    words = {prompt.split()[0] for prompt in (request.prompt for request in data.requests)}
    first = np.array([request.prompt.split()[0] for request in data.requests])
    residual = logs.copy()
    for word in words:
        residual[first == word] -= logs[first == word].mean()
    assert residual.std() < 0.75 * logs.std()
    known = np.array([bool(request.history.lengths) for request in data.requests])
    means = [np.log(r.history.lengths).mean() for r in data.requests if r.history.lengths]
    assert np.corrcoef(means, residual[known])[0, 1] > 0.15


def test_it_can_be_split_and_cut_into_buckets() -> None:
    data = synthetic(300, 7)
    parts = split(data)
    assert all(len(indices) for indices in parts.values())
    assert set(Bounds.fit(data.take(parts["train"]).lengths).bucket(data.lengths).tolist()) == {0, 1, 2}
