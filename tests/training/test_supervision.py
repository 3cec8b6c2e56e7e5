"""What each objective learns from: targets that point at the right read-outs, and rows that teach nothing."""

from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import seal_chat_template
from rewardlab.errors import DataError
from rewardlab.objectives import OBJECTIVES
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import encode_groups
from rewardlab.training.supervision import (
    MASKED,
    Supervision,
    fitted_values,
    pair_targets,
    ranking_targets,
    rankings_of,
    rating_targets,
    ratings_of,
    step_targets,
    supervision_of,
    token_targets,
)
from rewardlab.types import Pair, PromptGroup, Ranking, ReadOut, Step


def arguments(**values: Any) -> RewardArguments:
    return RewardArguments("unused", report_to="none", **values)


def supervision(objective: str, **values: Any) -> Supervision:
    return supervision_of(arguments(objective=objective, **values))


@pytest.fixture
def sealed(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    seal_chat_template(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|step|>"]})
    return tokenizer


def encoded(*groups: PromptGroup, readouts: int = 0) -> list[EncodedGroup]:
    """Groups whose sequences are numbers; each is read at so many places."""
    return [
        EncodedGroup(
            group,
            tuple((7, i) for i in range(len(group.completions))),
            1,
            readouts=((0,) * readouts,) * len(group.completions) if readouts else (),
        )
        for group in groups
    ]


def test_every_objective_has_its_supervision() -> None:
    for name in OBJECTIVES:
        assert supervision(name).lacks(PromptGroup("p", ["a"]))


# -- pairs -----------------------------------------------------------------------------------------------------------


def test_pairs_point_at_their_completions(sealed: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(sealed, 64)
    groups = [
        PromptGroup("Hi", ["a", "b"], [Pair(1, 0, margin=0.5)]),
        PromptGroup("Yo", ["c", "d", "e"], [Pair(0, 2), Pair(1, 2, weight=3.0), Pair(0, 1, tie=True)]),
        PromptGroup("So", ["f", "g"], [Pair(0, 1, p_chosen=0.75, strength=2.0)]),
    ]
    examples = encode_groups(groups, encoder, supervision("bradley_terry")).examples
    targets = pair_targets(examples)
    texts = [sealed.decode(ids) for example in examples for ids in example.sequences]
    sides = [(texts[c][-6], texts[r][-6]) for c, r in zip(targets.chosen, targets.rejected, strict=True)]
    assert sides == [("b", "a"), ("c", "e"), ("d", "e"), ("c", "d"), ("f", "g")]
    assert targets.margin.tolist() == [0.5, 0, 0, 0, 0]
    assert targets.weight.tolist() == [1, 1, 3, 1, 1]
    assert targets.group.tolist() == [0, 1, 1, 1, 2]
    assert targets.p_chosen.tolist() == [1, 1, 1, 0.5, 0.75]
    assert targets.tie.tolist() == [False, False, False, True, False]
    assert [math.isnan(s) or s for s in targets.strength.tolist()] == [True, True, True, 0, 2]


def test_margins_are_made_of_strength() -> None:
    """Llama 2's large margins are 3, 2, 1, 0 and its small ones 1, 2/3, 1/3, 0, here doubled."""
    pairs = [Pair(0, 1, strength=level, margin=9.0) for level in (3.0, 2.0, 1.0, 0.0)]
    examples = encoded(PromptGroup("p", ["a", "b"], [*pairs, Pair(0, 1, tie=True)]))
    assert pair_targets(examples).margin.tolist() == [9, 9, 9, 9, 0]
    assert pair_targets(examples, "llama2_large").margin.tolist() == [3, 2, 1, 0, 0]
    assert pair_targets(examples, "llama2_small", 2.0).margin.tolist() == pytest.approx([2, 4 / 3, 2 / 3, 0, 0])


def test_a_strength_that_is_missing_is_told_before_the_run(sealed: PreTrainedTokenizerFast) -> None:
    group = PromptGroup("p", ["a", "b"], [Pair()], source="rows.jsonl:3")
    encoder = Encoder(sealed, 64)
    for named in (supervision("bradley_terry", margin_from="difference"), supervision("scaled_bradley_terry")):
        with pytest.raises(DataError, match=r"rows\.jsonl:3"):
            encode_groups([group], encoder, named)


def test_grouped_pairs_leave_out_prompts_of_ties_alone(sealed: PreTrainedTokenizerFast) -> None:
    tie = PromptGroup("p", ["a", "b"], [Pair(tie=True)])
    assert [
        reason for _, reason in encode_groups([tie], Encoder(sealed, 64), supervision("grouped_pairs")).dropped
    ] == ["only ties: no pair is strict"]
    assert not encode_groups([tie], Encoder(sealed, 64), supervision("davidson")).dropped


def test_grouped_pairs_leave_out_a_row_that_only_its_ties_are_left_of(sealed: PreTrainedTokenizerFast) -> None:
    """The strict pair's sides are one after trimming; a step of ties alone would divide by no units."""
    group = PromptGroup("p", ["a", "a ", "b"], [Pair(0, 1), Pair(0, 2, tie=True)])
    data = encode_groups([group], Encoder(sealed, 64), supervision("grouped_pairs"))
    assert (data.examples, len(data.dropped), data.dropped_pairs) == ([], 1, [])
    assert len(encode_groups([group], Encoder(sealed, 64), supervision("davidson")).examples) == 1


# -- rankings --------------------------------------------------------------------------------------------------------


def ranks_of(pairs: list[Pair], count: int = 3) -> list[tuple[tuple[int, ...], tuple[int | None, ...]]]:
    group = PromptGroup("p", [str(i) for i in range(count)], pairs)
    return [(ranking.completions, ranking.ranks) for ranking in rankings_of(group)]


def test_pairs_that_put_all_in_order_are_one_ranking() -> None:
    """2 over 0 and 0 over 1 is the ranking 2, 0, 1, whether or not 2 over 1 is said."""
    expected = [((0, 1, 2), (1, 2, 0))]
    assert ranks_of([Pair(2, 0), Pair(0, 1)]) == expected
    assert ranks_of([Pair(2, 1), Pair(2, 0), Pair(0, 1)]) == expected


def test_ties_among_pairs_are_ties_of_the_ranking() -> None:
    """0 and 1 tie, and 1 is over 2: so is 0."""
    assert ranks_of([Pair(0, 1, tie=True), Pair(1, 2)]) == [((0, 1, 2), (0, 0, 1))]


@pytest.mark.parametrize(
    "pairs",
    [
        [Pair(0, 1), Pair(0, 2)],  # 1 and 2 stay open
        [Pair(0, 1), Pair(1, 2), Pair(2, 0)],  # a cycle
        [Pair(0, 1), Pair(1, 0)],  # a contradiction
        [Pair(0, 1), Pair(0, 1)],  # said twice: counts twice
        [Pair(0, 1, weight=2.0), Pair(1, 2)],  # two weights
        [Pair(0, 1, tie=True), Pair(1, 2), Pair(2, 0)],  # 0 = 1 over 2 over 0
    ],
)
def test_other_pairs_are_rankings_of_two(pairs: list[Pair]) -> None:
    assert ranks_of(pairs) == [((p.chosen, p.rejected), (0, 0 if p.tie else 1)) for p in pairs]


def test_pairs_beside_a_ranking_are_not_lost() -> None:
    """A ranking of 0 and 1, and the pair 2 over 0 from another row of the prompt: both teach."""
    ranking = Ranking((0, 1), (0, 1))
    group = PromptGroup("p", list("abc"), [*ranking.pairs(), Pair(2, 0)], rankings=[ranking])
    assert rankings_of(group) == (ranking, Ranking((0, 2), (1, 0)))
    assert rankings_of(PromptGroup("p", list("abc"), rankings=[ranking])) == (ranking,)
    for own in (Pair(0, 1, weight=5.0), Pair(0, 1, p_chosen=0.1)):  # before the ranking's own, and not taken for it
        group = PromptGroup("p", list("ab"), [own, *ranking.pairs()], rankings=[ranking])
        assert rankings_of(group) == (ranking, *rankings_of(PromptGroup("p", list("ab"), [own])))


def test_a_tie_of_a_ranking_stays_one_when_rows_are_merged(sealed: PreTrainedTokenizerFast) -> None:
    """C and B tie; in the merged group B comes first, so that the tie's sides have changed places: it counts once."""
    rows = [
        PromptGroup("p", ["b", "d"], rankings=[Ranking((0, 1), (0, 1))]),
        PromptGroup("p", ["c", "b"], rankings=[Ranking((0, 1), (0, 0))]),
    ]
    data = encode_groups(rows, Encoder(sealed, 64), supervision("plackett_luce"), max_group_size=8)
    (example,) = data.examples
    assert example.group.completions == ("b", "d", "c")
    assert rankings_of(example.group) == (Ranking((0, 1), (0, 1)), Ranking((2, 0), (0, 0)))


def test_a_soft_label_is_ranked_by_what_is_more_likely() -> None:
    pairs = [Pair(0, 1, p_chosen=0.1), Pair(0, 2, p_chosen=0.5)]
    assert ranks_of(pairs) == [((0, 1, 2), (1, 0, 1))]


def test_every_order_of_four_is_found_again_from_its_pairs() -> None:
    for ranks in permutations(range(4)):
        ranking = Ranking((0, 1, 2, 3), ranks)
        assert ranks_of(list(ranking.pairs()), 4) == [((0, 1, 2, 3), ranks)]


def test_ranking_targets_are_dense_and_padded() -> None:
    """Ranks 5, 5, 9 become 0, 0, 1; a top-1 list keeps its unranked as -1; the second group starts at completion 3."""
    examples = encoded(
        PromptGroup("p", ["a", "b", "c"], rankings=[Ranking((0, 1, 2), (5, 9, 5))]),
        PromptGroup("q", ["d", "e"], rankings=[Ranking((1, 0), (0, None), weight=2.0)]),
    )
    targets = ranking_targets(examples)
    assert targets.index.tolist() == [[0, 1, 2], [4, 3, -1]]
    assert targets.ranks.tolist() == [[0, 1, 0], [0, -1, -1]]
    assert targets.weight.tolist() == [1, 2]
    assert targets.group.tolist() == [0, 1]


# -- ratings ---------------------------------------------------------------------------------------------------------


def test_ratings_are_own_or_weighted_attributes() -> None:
    group = PromptGroup("p", ["a", "b"], ratings=[3, None], attributes=[{"help": 4, "length": 1}, {}])
    assert ratings_of(group, None) == (3, None)
    assert ratings_of(group, {"help": 0.5, "length": -1.0}) == (1.0, None)
    assert ratings_of(group, {"help": 0.5, "truth": 1.0}) == (None, None)


def test_rating_targets_leave_out_what_nobody_rated() -> None:
    examples = encoded(PromptGroup("p", ["a", "b"], ratings=[3, None]), PromptGroup("q", ["c"], ratings=[5]))
    targets = rating_targets(examples, None)
    assert (targets.index.tolist(), targets.rating.tolist(), targets.group.tolist()) == ([0, 2], [3, 5], [0, 1])
    assert fitted_values(arguments(objective="regression"), examples) == {"rating_mean": 4.0, "rating_std": 1.0}
    assert fitted_values(arguments(), examples) == {}


def test_attributes_without_weights_are_refused(sealed: PreTrainedTokenizerFast) -> None:
    group = PromptGroup("p", ["a"], attributes=[{"help": 4}], source="rows.jsonl:1")
    with pytest.raises(DataError, match=r"rates attributes \(help\), and attribute_weights says"):
        encode_groups([group], Encoder(sealed, 64), supervision("regression"))


# -- outcomes and steps ----------------------------------------------------------------------------------------------


def test_the_outcome_stands_on_every_completion_token_and_on_none_of_the_prompt(
    sealed: PreTrainedTokenizerFast,
) -> None:
    """What is read decodes to the completion and its end token, all of it and nothing else."""
    encoder = Encoder(sealed, 128, ReadOut("token", "mean"))
    group = PromptGroup("What is 6 times 7?", ["42", "It is 41, I think."], labels=[1, 0.25])
    (example,) = encode_groups([group], encoder, supervision("outcome")).examples
    read = [[ids[i] for i in at] for ids, at in zip(example.sequences, example.readouts, strict=True)]
    assert [sealed.decode(ids).strip() for ids in read] == ["42<eos>", "It is 41, I think.<eos>"]
    assert token_targets([example]).label.tolist() == [1.0] * len(read[0]) + [0.25] * len(read[1])


def test_completions_without_an_outcome_are_masked() -> None:
    examples = encoded(PromptGroup("p", ["a", "b"], labels=[None, 1]), readouts=2)
    assert token_targets(examples).label.tolist() == [MASKED, MASKED, 1, 1]


def test_steps_are_read_at_their_ends(sealed: PreTrainedTokenizerFast) -> None:
    """Each boundary is the separator right behind its step: moved by one, what is decoded before it is another text."""
    encoder = Encoder(sealed, 128, ReadOut("step", "min", 3, "<|step|>", "\n"))
    steps = (Step("6 times 7 is 42.", 1), Step("So far\nso good.", 0), Step("Half of it is 22.", -1), Step("Done."))
    group = PromptGroup("Half of <|step|> 6 times 7?", ["unused"], steps=[steps])
    (example,) = encode_groups([group], encoder, supervision("process")).examples
    ids, at = example.sequences[0], example.readouts[0]
    assert [sealed.decode([ids[i]]) for i in at] == ["<|step|>"] * 4
    starts = (at[0] - len(sealed.encode(" 6 times 7 is 42.", add_special_tokens=False)), *(i + 1 for i in at[:-1]))
    found = [sealed.decode(ids[start:stop]).strip() for start, stop in zip(starts, at, strict=True)]
    assert found == [step.text for step in steps]
    assert step_targets([example], 3).label.tolist() == [2, 1, 0, MASKED]
    assert step_targets([example], 2).label.tolist() == [1, 1, 0, MASKED]


def test_a_step_that_holds_the_separator_is_quarantined(sealed: PreTrainedTokenizerFast) -> None:
    encoder = Encoder(sealed, 128, ReadOut("step", "min", 3, "<|step|>"))
    group = PromptGroup("p", ["unused"], steps=[(Step("a<|step|>b", 1),)], source="rows.jsonl:2")
    ((row, reason),) = encode_groups([group], encoder, supervision("process")).quarantined
    assert row == group
    assert reason.startswith("step boundaries unclear: rows.jsonl:2")


def test_rows_whose_labels_are_all_null_are_dropped(sealed: PreTrainedTokenizerFast) -> None:
    token = Encoder(sealed, 64, ReadOut("token", "mean"))
    step = Encoder(sealed, 64, ReadOut("step", "min", 3, "<|step|>"))
    nothing = encode_groups([PromptGroup("p", ["a"], labels=[None])], token, supervision("outcome"))
    assert [reason for _, reason in nothing.dropped] == ["no outcome: all labels are null"]
    nothing = encode_groups([PromptGroup("p", ["a"], steps=[(Step("a"),)])], step, supervision("process"))
    assert [reason for _, reason in nothing.dropped] == ["no step label: all are null"]


@pytest.mark.parametrize("objective", ["plackett_luce", "regression", "outcome", "process"])
def test_rows_of_another_kind_are_refused(objective: str, sealed: PreTrainedTokenizerFast) -> None:
    named = supervision(objective)
    with pytest.raises(DataError, match=r"rows\.jsonl:3: no "):
        encode_groups([PromptGroup("Hi", ["x"], source="rows.jsonl:3")], Encoder(sealed, 64), named)


def test_a_single_row_of_another_kind_is_quarantined(sealed: PreTrainedTokenizerFast) -> None:
    """And rows that lack one of the weighted attributes; the others teach on."""
    groups = [
        PromptGroup("Hi", ["x"], attributes=[{"help": 1, "truth": 2}]),
        PromptGroup("Hi", ["y"], attributes=[{"help": 3}], source="rows.jsonl:2"),
        PromptGroup("Hi", ["z"], source="rows.jsonl:3"),
    ]
    named = supervision("regression", attribute_weights={"help": 1.0, "truth": 1.0})
    data = encode_groups(groups, Encoder(sealed, 64), named)
    assert [e.group for e in data.examples] == groups[:1]
    assert [reason for _, reason in data.quarantined] == [
        "nothing to learn from: rows.jsonl:2: no rating of truth",
        "nothing to learn from: rows.jsonl:3: no rating of help, truth",
    ]


def test_ratings_that_do_not_differ_are_refused() -> None:
    with pytest.raises(DataError, match="all 2 ratings are 4"):
        fitted_values(arguments(objective="regression"), encoded(PromptGroup("p", ["a", "b"], ratings=[4, 4])))


def test_metrics_go_with_the_targets() -> None:
    """Tokens 1, -1, 1 under labels 1, 1, masked: one of two right. Rankings: 3 > 1 right, 2 > 1 right, 3 > 2 wrong."""
    (example,) = encoded(PromptGroup("p", ["a"], labels=[1.0]), readouts=2)
    named = supervision("outcome")
    assert named.metrics([(torch.tensor([1.0, -1.0]), named.targets([example]))])["accuracy"] == 0.5
    (example,) = encoded(PromptGroup("p", ["a", "b", "c"], rankings=[Ranking((0, 1, 2), (0, 1, 2))]))
    named = supervision("plackett_luce")
    metrics = named.metrics([(torch.tensor([2.0, 3.0, 1.0]), named.targets([example]))])
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["margin"] == pytest.approx((-1 + 1 + 2) / 3)
