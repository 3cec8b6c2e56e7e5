"""Bounds on tokens: never above what the tokenizer makes, and silent where that cannot be known."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rewardlab.data.template import tokenize
from rewardlab.data.token_bounds import TokenBounds

PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["<eos>", "<bos>", "<pad>", " " * 40, "the sea ", "e\u0301", "\u1112\u1161\u11ab", "\U0001f468\u200d"]
    ),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # what is changed of it is set each time
@given(TEXTS, st.booleans())
def test_a_bound_is_never_above_the_tokens(tokenizer: PreTrainedTokenizerFast, text: str, normalizes: bool) -> None:
    """With NFC, as Qwen's, where the text is not in its normal form nothing is said."""
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC() if normalizes else None
    assert TokenBounds(tokenizer).at_least(text) <= len(tokenize(tokenizer, text))


def test_a_bound_is_the_weight_of_the_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    """By hand: of each byte the longest token that holds it, over all tokens of the vocabulary."""
    vocabulary = [token.replace("\u0120", " ") for token in tokenizer.get_vocab()]
    text = "the sea and the wind" * 50
    weight = sum(1 / max(len(token) for token in vocabulary if char in token) for char in text)
    assert TokenBounds(tokenizer).at_least(text) == pytest.approx(weight, abs=1)
    assert TokenBounds(tokenizer).at_least("") == 0


def test_splitting_that_keeps_all_is_known(tokenizer: PreTrainedTokenizerFast) -> None:
    split = [pre_tokenizers.Split(Regex(" ?\\w+"), "isolated"), pre_tokenizers.ByteLevel(use_regex=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split)
    assert 0 < TokenBounds(tokenizer).at_least("the sea" * 20) <= len(tokenize(tokenizer, "the sea" * 20))


@pytest.mark.parametrize("how", ["lower", "stripped", "removed", "words", "none"])
def test_where_characters_may_be_lost_nothing_is_said(tokenizer: PreTrainedTokenizerFast, how: str) -> None:
    backend = tokenizer.backend_tokenizer
    if how == "lower":
        backend.normalizer = normalizers.NFKC()
    elif how == "stripped":
        tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken("<x>", rstrip=True)]})
        assert len(tokenize(tokenizer, "<x>" + " " * 1000)) == 1
    elif how == "removed":
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.ByteLevel()]
        )
    elif how == "words":
        backend.pre_tokenizer = pre_tokenizers.Whitespace()
    else:
        backend.pre_tokenizer = None
    assert TokenBounds(tokenizer).at_least("the sea " * 1000) == 0
