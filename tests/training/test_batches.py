"""Encoding with every group accounted for, and batches whose targets point at the right completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rewardlab.data.encoding import Encoder
from rewardlab.data.ledger import reason_kind
from rewardlab.data.template import seal_chat_template
from rewardlab.errors import DataError
from rewardlab.modeling.engine import Planner
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import EncodedDataset, GroupCollator, encode_groups, repeated_prompts_note, ties_note
from rewardlab.training.supervision import Supervision, supervision_of
from rewardlab.types import Pair, PromptGroup, Ranking


def supervision(objective: str = "bradley_terry") -> Supervision:
    return supervision_of(RewardArguments("unused", objective=objective, report_to="none"))


def encoded(groups: list[PromptGroup], encoder: Encoder, **options: Any) -> EncodedDataset:
    return encode_groups(groups, encoder, supervision(), **options)


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
    data = encoded(groups, encoder)
    assert [e.group.id for e in data.examples] == ["fine", "cut"]
    assert [(g.id, reason) for g, reason in data.dropped] == [
        ("alike after trimming", "chosen and rejected give the same token ids")
    ]
    assert data.quarantined[0][0].id == "too long"
    assert "maximum length is 64" in data.quarantined[0][1]
    assert data.num_truncated == 1
    assert data.groups == [groups[0], groups[3]]
    assert data.dropped_pairs == []


def test_a_row_of_several_pairs_loses_only_those_that_became_identical(encoder: Encoder) -> None:
    """Completions 0 and 1 are one after trimming: of three pairs one is lost. The second row has no other pair."""
    some = PromptGroup("Hi", ["same", " same", "bad"], [Pair(0, 1), Pair(0, 2, margin=0.5), Pair(2, 1)], id="some")
    all_ = PromptGroup("Hi", ["same", " same"], [Pair(0, 1), Pair(1, 0)], id="all")
    data = encoded([some, all_], encoder)
    (example,) = data.examples
    assert example.group.pairs == (Pair(0, 2, margin=0.5), Pair(2, 1))
    assert data.groups == [example.group]
    assert data.dropped_pairs == [(some, "chosen and rejected give the same token ids: 1 of 3 pairs")]
    assert data.dropped == [(all_, "chosen and rejected give the same token ids: 2 of 2 pairs")]
    assert reason_kind(data.dropped[0][1]) == "chosen and rejected give the same token ids"
    kept = encoded([some, all_], encoder, keep_identical=True)
    assert [e.group for e in kept.examples] == kept.groups == [some, all_]


def test_rows_of_one_prompt_are_merged_after_every_row_is_accounted_for(encoder: Encoder) -> None:
    groups = [
        PromptGroup("word " * 99, ["good", "bad"], [Pair()], id=0),  # cut
        PromptGroup("Hi", ["good", "bad"], [Pair()], id=1),
        PromptGroup("word " * 99, ["best", "good"], [Pair()], id=2),  # cut
        PromptGroup("Hi", ["same ", " same"], [Pair()], id=3),
        PromptGroup("Hi", ["good", "word " * 99], [Pair()], id=4),
        PromptGroup("word " * 99, ["bad", "worse"], [Pair()], id=5),  # cut
    ]
    data = encoded(groups, encoder, max_group_size=4)
    assert [(e.group.id, len(e.sequences), e.group.pairs) for e in data.examples] == [
        (0, 4, (Pair(0, 1), Pair(2, 0), Pair(1, 3))),
        (1, 2, (Pair(),)),
    ]
    assert [g.id for g in data.groups] == [0, 1, 2, 5]
    assert [g.id for g, _ in data.dropped] == [3]
    assert [g.id for g, _ in data.quarantined] == [4]
    assert data.num_truncated == 3
    assert len(data.groups) + len(data.dropped) + len(data.quarantined) == len(groups)
    assert [e.group for e in encoded(groups, encoder).examples] == data.groups


def test_repeated_prompts_are_told_with_figures(encoder: Encoder) -> None:
    """Prompt A has three pairs over four completions, prompt B and rows without a prompt one each."""
    rows = [
        *(PromptGroup("A", ["best", bad], [Pair()]) for bad in ("good", "bad", "worst")),
        PromptGroup("B", ["good", "bad"], [Pair()]),
        *(PromptGroup("", ["good", "bad"], [Pair()]) for _ in range(2)),
    ]
    note = repeated_prompts_note(encoded(rows, encoder, max_group_size=16))
    assert note is not None
    assert note.startswith("1 of 4 prompts have several pairs, up to 3 for one; ")
    assert "in one group and step; " in note
    assert note.endswith("--objective grouped_pairs counts each prompt once")
    split = repeated_prompts_note(encoded(rows, encoder, max_group_size=3))
    assert split is not None
    assert "(1 too large for one: in several)" in split
    assert split.endswith("counts each group once")
    assert repeated_prompts_note(encoded(rows, encoder)) is None  # not merged: the objective makes no difference
    assert repeated_prompts_note(encoded(rows[3:], encoder, max_group_size=16)) is None


def test_a_few_repeated_prompts_are_not_worth_a_word(encoder: Encoder) -> None:
    """Two pairs that share a prompt are 2 of 40 = 5 % and told, and 2 of 41 and not told."""
    rows = [PromptGroup(f"prompt {max(i, 1)}", [f"good {i}", "bad"], [Pair()]) for i in range(41)]
    assert repeated_prompts_note(encoded(rows[:40], encoder, max_group_size=16)) is not None
    assert repeated_prompts_note(encoded(rows, encoder, max_group_size=16)) is None


def test_groups_without_pairs_are_refused(encoder: Encoder) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:3: no preference"):
        encoded([PromptGroup("Hi", ["x"], source="rows.jsonl:3")], encoder)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize("budget", [10, 45, 1000])
def test_parts_hold_each_group_once_under_the_budget(
    base_model: Path, encoder: Encoder, layout: str, budget: int
) -> None:
    """Each part's forwards give each of its completions one score; only a single group may need several forwards."""
    groups = [PromptGroup(f"question {i}", ["yes", "no " * i, "maybe"], [Pair(0, 2)]) for i in range(1, 6)]
    examples = encoded(groups, encoder).examples
    model = prepare_for_training(base_model, seed=0).model
    batch = GroupCollator(Planner(model, layout, budget), supervision())(examples)
    assert batch["num_tokens"] == sum(sum(e.lengths) for e in examples)
    pairs = 0
    for part in batch["parts"]:
        order = [i for forward in part.forwards for i in forward.indices]
        assert sorted(order) == list(range(len(order)))
        assert len(part.forwards) == 1 or len(order) == 3
        assert all(f.num_tokens <= budget or len(f.indices) == 1 for f in part.forwards)
        pairs += len(part.targets.chosen)
    assert pairs == len(groups)
    assert (len(batch["parts"]) == 1) == (budget == 1000)


def test_ties_are_told_under_bradley_terry_and_ties_alone_point_to_davidson(encoder: Encoder) -> None:
    rows = [PromptGroup(f"p{i}", ["a", "b"], [Pair(tie=i < 2)]) for i in range(5)]
    assert str(ties_note(encoded(rows, encoder))).startswith("2 of 5 pairs are ties: ")
    assert ties_note(encoded(rows[2:], encoder)) is None
    with pytest.raises(DataError, match="2 dropped, 0 quarantined") as caught:
        encode_groups(rows[:2], encoder, supervision("grouped_pairs")).required("training")
    assert "(2 × only ties)" in caught.value.message
    assert "--objective davidson" in caught.value.hint


def test_a_ranking_with_too_many_pairs_is_quarantined_where_pairs_are_learned_from(encoder: Encoder) -> None:
    """With its size, the limit and what to do; objectives that take it whole take it."""
    huge = PromptGroup(
        "Hi", ["good"] * 1001, rankings=[Ranking(tuple(range(1001)), tuple(range(1001)))], ratings=[1.0] * 1001, id="x"
    )
    data = encoded([huge, PromptGroup("Hi", ["good", "bad"], [Pair()], id="fine")], encoder)
    assert [example.group.id for example in data.examples] == ["fine"]
    ((row, reason),) = data.quarantined
    assert row is huge
    assert "500,500 between 1,001 ranked completions, where at most 500,000 are made" in reason
    assert "plackett_luce or regression" in reason
    for objective in ("plackett_luce", "regression"):
        (example,) = encode_groups([huge], encoder, supervision(objective)).examples
        supervision(objective).targets([example])
