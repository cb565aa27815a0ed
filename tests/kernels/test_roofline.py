"""The floor of a pass: exact numbers of small worlds, and the known ones of BERT-base."""

from __future__ import annotations

import pytest

from mope.kernels.roofline import CARDS, Card, Shape, Work, attention, linear, operations, report

BERT = Shape(768, 12, 3072)


def test_a_linear_map_by_hand():
    """Two tokens, 4 x 3 weights of one expert: 2*2*4*3 operations; 12 weights, 4 biases, 6 in, 8 out."""
    assert linear(2, 4, 3, 1) == Work(48.0, 12 * 2 + 4 * 4 + (6 + 8) * 2, 1)
    assert linear(2, 4, 3, 1, residual=True).bytes == linear(2, 4, 3, 1).bytes + 8 * 2


def test_attention_by_hand():
    """Lengths 1 and 3, width 2: 4 * (1 + 9) * 2 operations; 4 tokens x (q, k, v, out) x 2."""
    assert attention([1, 3], 2) == Work(80.0, 4 * 4 * 2 * 2, 1)


def test_the_slower_of_both_sets_the_floor():
    card = Card(flops_s=1e6, bytes_s=1e3)
    assert Work(flops=10.0, bytes=1.0).floor_us(card) == pytest.approx(1000.0)
    assert Work(flops=1e6, bytes=1.0).floor_us(card) == pytest.approx(1e6)


@pytest.mark.parametrize(("card", "us"), [("A100-80GB", 85), ("H100-SXM", 51)])
def test_reading_one_bert_base_expert(card, us):
    """Its 85 M weights in 16 bits are 170 MB; one token adds next to nothing."""
    floor = report([1], Shape(768, 12, 3072, experts=1), 1)["floor_us"][card]
    assert floor == pytest.approx(us, rel=0.03)


@pytest.mark.parametrize(("shared", "experts_a_text"), [(0, 1), (0, 3), (5, 3)])
def test_launches_do_not_depend_on_experts_or_tokens(shared, experts_a_text):
    for lengths in ([1], [128] * 32):
        got = report(lengths, Shape(768, 12, 3072, shared=shared), experts_a_text)
        assert got["launches"] == 5 * 12 + 2 <= 5 * 12 + 3


def test_shared_layers_are_paid_once():
    whole, cut = operations([128], BERT, 3), operations([128], Shape(768, 12, 3072, shared=6), 3)
    assert whole["up"].flops == pytest.approx(3 * 12 / (6 + 3 * 6) * cut["up"].flops)


def test_hard_routing_reads_only_the_experts_that_are_asked():
    one, three = (operations([8] * n, BERT, 1)["up"] for n in (1, 3))
    assert three.bytes > 2.9 * one.bytes
    assert operations([8] * 30, BERT, 1)["up"].bytes < 1.3 * three.bytes


def test_small_batches_wait_for_memory_and_large_ones_for_arithmetic():
    assert set(report([128], BERT, 1)["bound_by"].values()) == {"memory"}
    assert set(report([128] * 32, BERT, 3)["bound_by"].values()) == {"compute"}
    assert set(CARDS) >= {"A100-80GB", "H100-SXM"}
