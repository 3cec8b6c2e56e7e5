"""Each member's own ids, made once for those that read the same."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.errors import CompletionTooLongError
from rewardlab.scoring.ensemble_encoding import EncodedForMembers, EnsembleEncoder, same_ids
from rewardlab.types import PromptGroup, ReadOut

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GROUPS = [PromptGroup("Hi", ["there", "the sea and the wind"]), PromptGroup("the sea " * 20, ["x"])]


def test_who_shares_ids(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    """A copy does; another length, template, end token, vocabulary or read-out does not. Aggregation is no read-out."""
    template, end, words = (deepcopy(chat_tokenizer) for _ in range(3))
    template.chat_template = str(template.chat_template).replace("<|", "<")
    end.eos_token = "<pad>"
    words.add_tokens(["wind"])
    encoders = [
        Encoder(chat_tokenizer, 64),
        Encoder(deepcopy(chat_tokenizer), 64),
        Encoder(chat_tokenizer, 32),
        Encoder(template, 64),
        Encoder(end, 64),
        Encoder(words, 64),
        Encoder(chat_tokenizer, 64, ReadOut("token", "mean")),
        Encoder(chat_tokenizer, 64, ReadOut("token", "min")),
    ]
    assert same_ids(encoders) == [0, 0, 1, 2, 3, 4, 5, 5]


def test_each_encoder_encodes_for_itself(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    encoders = [Encoder(chat_tokenizer, 64), Encoder(chat_tokenizer, 48), Encoder(chat_tokenizer, 128)]
    ensemble = EnsembleEncoder(encoders, ["a", "b", "c"])
    told: list[int] = []
    results = ensemble.encode_many(GROUPS, told.append)
    assert sum(told) == 2
    assert ensemble.max_length == 48
    for group, found in zip(GROUPS, results, strict=True):
        assert isinstance(found, EncodedForMembers)
        own = [encoder.encode(group) for encoder in encoders]
        assert found.by_encoder == tuple(own)
        assert (found.group, found.sequences, found.readouts) == (group, own[0].sequences, own[0].readouts)
        assert found.truncated == max(item.truncated for item in own)
        assert ensemble.encode(group) == found
    assert [item.truncated for item in results if isinstance(item, EncodedGroup)] == [0, 1]


def test_the_error_of_one_is_the_groups(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    ensemble = EnsembleEncoder([Encoder(chat_tokenizer, 200), Encoder(chat_tokenizer, 40)], ["long", "short"])
    good, bad = ensemble.encode_many([PromptGroup("Hi", ["x"]), PromptGroup("Hi", ["the sea and the wind " * 6])])
    assert isinstance(good, EncodedForMembers)
    assert isinstance(bad, CompletionTooLongError)
    assert bad.message.endswith("(member short)")
    assert bad.hint
