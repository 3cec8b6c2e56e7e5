"""Encoding with every group accounted for, and batches whose targets point at the right completions."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rewardlab.data.encoding import Encoder
from rewardlab.data.template import seal_chat_template
from rewardlab.errors import DataError
from rewardlab.training.batches import PairCollator, encode_pairs, pair_targets, targets_of
from rewardlab.types import Pair, PromptGroup


@pytest.fixture
def encoder(tokenizer: PreTrainedTokenizerFast) -> Encoder:
    seal_chat_template(tokenizer)  # the plain template, which trims what it renders
    return Encoder(tokenizer, 64)


def test_every_group_is_used_dropped_or_quarantined(encoder: Encoder) -> None:
    groups = [
        PromptGroup("Hi", ["good", "bad"], [Pair()], id="fine"),
        PromptGroup("Hi", ["same ", " same"], [Pair()], id="alike after trimming"),
        PromptGroup("Hi", ["good", "word " * 99], [Pair()], id="too long"),
        PromptGroup("word " * 99, ["good", "bad"], [Pair()], id="cut"),
    ]
    data = encode_pairs(groups, encoder)
    assert [e.group.id for e in data.examples] == ["fine", "cut"]
    assert [(g.id, reason) for g, reason in data.dropped] == [
        ("alike after trimming", "chosen and rejected give the same token ids")
    ]
    assert data.quarantined[0][0].id == "too long"
    assert "maximum length is 64" in data.quarantined[0][1]
    assert data.num_truncated == 1


def test_groups_without_pairs_are_refused(encoder: Encoder) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3: no preference"):
        encode_pairs([PromptGroup("Hi", ["x"], source="rows.jsonl:3")], encoder)


def test_batch_targets_point_at_their_completions(encoder: Encoder) -> None:
    groups = [
        PromptGroup("Hi", ["a", "b"], [Pair(1, 0, margin=0.5)]),
        PromptGroup("Yo", ["c", "d", "e"], [Pair(0, 2), Pair(1, 2, weight=3.0)]),
    ]
    examples = encode_pairs(groups, encoder).examples
    batch = PairCollator(encoder.tokenizer.pad_token_id)(examples)
    texts = [
        encoder.tokenizer.decode([i for i in row if i != encoder.tokenizer.pad_token_id]) for row in batch["input_ids"]
    ]
    sides = [(texts[c][-6], texts[r][-6]) for c, r in zip(batch["chosen"], batch["rejected"], strict=True)]
    assert sides == [("b", "a"), ("c", "e"), ("d", "e")]
    assert batch["margin"].tolist() == [0.5, 0.0, 0.0]
    assert batch["weight"].tolist() == [1.0, 1.0, 3.0]
    assert torch.equal(targets_of(batch).chosen, pair_targets(examples)["chosen"])
