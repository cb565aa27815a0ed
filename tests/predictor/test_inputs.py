"""Requests as arrays: each different text once, padded to the longest, and a subset that reads the same."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from mope.predictor.config import TextConfig
from mope.predictor.features import NAMES, matrix
from mope.predictor.inputs import Inputs, build_inputs
from mope.types import History, Request

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefgh"]
CLS, SEP, A, B = 2, 3, 4, 5
RULE = TextConfig(prompt_head=3, prompt_tail=2, earlier_prompt=2, answer_tail=2)
REQUESTS = (
    Request("a b", model="m"),
    Request("a"),
    Request("a b", model="n"),
    Request("a b", history=History(prompts=("b",), answer_tail="a")),
    Request("a", model="never seen", max_tokens=9),
)


@pytest.fixture
def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


@pytest.fixture
def inputs(tokenizer: Tokenizer) -> Inputs:
    return build_inputs(REQUESTS, tokenizer, RULE, ("m", "n"))


def test_equal_texts_stand_once(inputs: Inputs):
    assert len(inputs) == 5
    assert inputs.text.tolist() == [0, 1, 0, 2, 1]
    assert inputs.sizes.tolist() == [4, 3, 8]
    assert inputs.ids.tolist() == [CLS, A, B, SEP, CLS, A, SEP, CLS, A, B, SEP, B, SEP, A, SEP]
    assert inputs.segments.tolist() == [0] * 11 + [1] * 4


def test_a_model_that_is_not_known_is_number_0(inputs: Inputs):
    assert inputs.model.tolist() == [1, 0, 2, 0, 0]


def test_features_are_each_rows_own(inputs: Inputs):
    assert np.array_equal(inputs.features, matrix(REQUESTS), equal_nan=True)
    assert inputs.features[4, NAMES.index("max_tokens")] == 9
    assert np.isnan(inputs.features[1, NAMES.index("max_tokens")])


def test_a_batch_is_padded_to_its_own_longest_text(inputs: Inputs):
    batch = inputs.batch(np.array([1, 2, 4]))
    assert batch.ids.tolist() == [[CLS, A, B, SEP], [CLS, A, SEP, 0]]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert batch.segments.tolist() == [[0] * 4] * 2
    assert batch.text.tolist() == [1, 0, 1]
    assert batch.model.tolist() == [0, 2, 0]


def test_a_subset_reads_the_same_texts(inputs: Inputs):
    batch = inputs.batch(np.arange(5))
    part, texts = batch.subset(np.array([4, 3]))
    assert texts.tolist() == [1, 2]
    assert np.array_equal(part.ids, batch.ids[[1, 2]])
    assert np.array_equal(part.mask, batch.mask[[1, 2]])
    assert part.text.tolist() == [0, 1]
    assert np.array_equal(part.features, batch.features[[4, 3]], equal_nan=True)


def test_no_requests(tokenizer: Tokenizer):
    inputs = build_inputs([], tokenizer, RULE)
    assert len(inputs) == 0
    assert inputs.starts.tolist() == [0]
    assert inputs.features.shape == (0, len(NAMES))


def test_features_at_hand_are_not_computed_again(tokenizer: Tokenizer):
    ready = np.full((1, len(NAMES)), 7, np.float32)
    assert build_inputs(REQUESTS[:1], tokenizer, RULE, features=ready).features is ready


def test_alone_every_text_has_its_rows_and_no_padding(inputs: Inputs):
    batch = inputs.batch(np.array([1, 2, 4]))
    first, second = batch.alone()
    assert first.ids.tolist() == [[CLS, A, B, SEP]]
    assert second.ids.tolist() == [[CLS, A, SEP]]
    assert second.mask.tolist() == second.mask.clip(1).tolist()
    assert [part.text.tolist() for part in (first, second)] == [[0], [0, 0]]
    assert [part.model.tolist() for part in (first, second)] == [[2], [0, 0]]
    assert np.array_equal(second.features, batch.features[[0, 2]], equal_nan=True)


def test_a_text_that_is_alone_already_loses_its_padding(inputs: Inputs):
    part, _ = inputs.batch(np.array([1, 2])).subset(np.array([0]))
    assert part.ids.tolist() == [[CLS, A, SEP, 0]]
    (alone,) = part.alone()
    assert alone.ids.tolist() == [[CLS, A, SEP]]
    assert alone.alone() == [alone]
