from __future__ import annotations

import pytest
import torch

from mope.kernels import reference, route

CU = torch.tensor([0, 1, 1 + 30, 31 + 130, 161, 170], dtype=torch.int32)  # 1, 30, 130, 0 and 9 tokens
TEXTS = {
    "one": [0],
    "mixed": [0, 4, 2, 2, 1, 0, -1, 4, -1],
    "padding only": [-1, -1],
    "empty text": [3, 1],
}


@pytest.mark.parametrize("lexical", [False, True])
@pytest.mark.parametrize("texts", TEXTS)
def test_route(texts, lexical):
    text = torch.tensor(TEXTS[texts], dtype=torch.int32)
    n = len(text)
    known = torch.softmax(torch.randn(n, 3), 1) if lexical else None
    scores = 2 * torch.randn(n, 13)
    got, want = (op.route(scores, known, text, CU, 5, 400) for op in (route, reference))
    assert torch.allclose(got.chances, want.chances, atol=1e-6)
    for name in ("cu", "offsets", "sequence", "expert"):
        assert torch.equal(getattr(got, name), getattr(want, name)), name
    used = int(want.offsets[-1])
    assert torch.equal(got.rows[:used], want.rows[:used])
    assert (got.rows[used:] == -7).all()


@pytest.mark.parametrize("expert", [0, 1, 2])
def test_all_rows_to_one_expert(expert):
    scores = torch.zeros(4, 3)
    scores[:, expert] = 1.0
    got = route.route(scores, None, torch.tensor([0, 1, 4, 1], dtype=torch.int32), CU, 4, 80)
    assert got.offsets.tolist() == [0] * (expert + 1) + [70] * (4 - expert)
    assert got.sequence.tolist() == [0, 1, 2, 3]


def test_a_tie_goes_to_the_shorter_bucket():
    got = route.route(torch.zeros(1, 3), None, torch.tensor([0], dtype=torch.int32), CU, 3, 8)
    assert got.expert.tolist() == [0]
