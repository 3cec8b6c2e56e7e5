"""Merging rows by prompt: no pair is lost or changed, groups keep their limit, rows that stand alone stay as they are.

The oracle for hypothesis is the multiset of pairs written out as ids; sequences are made without a tokenizer, as a
prompt's ids followed by a completion's.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.encoding import EncodedGroup, common_prefix_length
from rewardlab.data.merging import count_merged, merge_by_prompt
from rewardlab.types import Pair, PromptGroup, Ranking, Step

PROMPTS = ["", "what", "why", "how"]


def encoded(prompt: str, completions: Sequence[str], pairs: Sequence[Pair], **fields: object) -> EncodedGroup:
    """A row whose ids are characters, so that texts are the same exactly where ids are."""
    truncated = int(fields.pop("truncated", 0))  # type: ignore[call-overload]
    sequences = tuple(tuple(map(ord, f"{prompt}|{completion}")) for completion in completions)
    group = PromptGroup(prompt, completions, pairs, **fields)  # type: ignore[arg-type]
    return EncodedGroup(group, sequences, common_prefix_length(sequences), truncated)


def pair(prompt: str, chosen: str, rejected: str, **fields: object) -> EncodedGroup:
    """A row of one pair."""
    return encoded(prompt, [chosen, rejected], [Pair()], **fields)


@st.composite
def rows(draw: st.DrawFn) -> EncodedGroup:
    """A row of 1 to 5 of eight completions, the same one twice too, with pairs between different ones."""
    completions = draw(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5))
    places = st.integers(0, len(completions) - 1)
    pairs = draw(st.lists(st.tuples(places, places, st.none() | st.floats(-1, 1), st.floats(0.1, 2)), max_size=4))
    return encoded(
        draw(st.sampled_from(PROMPTS)),
        completions,
        [Pair(*values) for values in pairs if completions[values[0]] != completions[values[1]]],
        truncated=draw(st.integers(0, len(set(completions)))),
    )


def pairs_as_ids(groups: Sequence[EncodedGroup]) -> Counter[tuple[object, ...]]:
    return Counter(
        (g.sequences[p.chosen], g.sequences[p.rejected], p.margin, p.weight) for g in groups for p in g.group.pairs
    )


@given(st.lists(rows(), max_size=20), st.integers(2, 8))
def test_no_pair_is_lost_and_no_group_too_large(given_rows: list[EncodedGroup], limit: int) -> None:
    merged = merge_by_prompt(given_rows, limit)
    assert pairs_as_ids(merged) == pairs_as_ids(given_rows)
    for group in merged:
        assert len(group.group.completions) == len(group.sequences)
        assert group.prefix_length == common_prefix_length(group.sequences)
        if any(group is row for row in given_rows):
            continue
        assert len(group.sequences) == len(set(group.sequences)) <= limit
        assert group.truncated <= len(group.sequences)
    sequences = {(row.group.prompt, ids) for row in given_rows for ids in row.sequences}
    assert {(group.group.prompt, ids) for group in merged for ids in group.sequences} == sequences
    assert any(group.truncated for group in merged) <= any(row.truncated for row in given_rows)


@given(st.lists(rows(), max_size=20), st.integers(2, 8))
def test_neighbouring_groups_of_a_prompt_could_not_have_been_one(given_rows: list[EncodedGroup], limit: int) -> None:
    by_prompt: dict[str, list[EncodedGroup]] = {}
    for group in merge_by_prompt(given_rows, limit):
        if group.group.prompt:
            by_prompt.setdefault(group.group.prompt_key, []).append(group)
    for groups in by_prompt.values():
        for first, second in itertools.pairwise(groups):
            assert len({*first.sequences, *second.sequences}) > limit


@given(st.lists(rows(), max_size=20), st.integers(2, 8))
def test_merging_again_changes_nothing(given_rows: list[EncodedGroup], limit: int) -> None:
    once = merge_by_prompt(given_rows, limit)
    again = merge_by_prompt(once, limit)
    assert len(again) == len(once)
    assert all(a is b for a, b in zip(again, once, strict=True))


@given(st.lists(rows(), max_size=20), st.integers(0, 8))
def test_the_estimate_is_exact_where_texts_differ_as_ids_do(given_rows: list[EncodedGroup], limit: int) -> None:
    assert count_merged([row.group for row in given_rows], limit) == len(merge_by_prompt(given_rows, limit))


def test_pairs_point_at_shared_completions_in_the_order_in_which_they_came() -> None:
    """Rows (a > b), (c > a), (b > a), (a > b) again: completions a, b, c and pairs 01, 20, 10, 01."""
    ab = pair("why", "a", "b", id="first", source="pairs.jsonl:1", subset="s")
    ca = encoded("why", ["c", "a"], [Pair(margin=0.5, weight=2.0)], subset="s", source="pairs.jsonl:2")
    merged = merge_by_prompt([ab, pair("how", "x", "y"), ca, pair("why", "b", "a", subset="s"), ab], 16)
    assert [g.group.prompt for g in merged] == ["why", "how"]
    group = merged[0].group
    assert group.completions == ("a", "b", "c")
    assert group.pairs == (Pair(0, 1), Pair(2, 0, margin=0.5, weight=2.0), Pair(1, 0), Pair(0, 1))
    assert (group.id, group.source, group.subset) == ("first", "pairs.jsonl:1", "s")


def test_a_subset_is_kept_only_where_all_rows_have_it() -> None:
    (merged,) = merge_by_prompt([pair("why", "a", "b", subset="s"), pair("why", "a", "c")], 16)
    assert merged.group.subset is None


def test_text_and_equal_messages_are_one_prompt() -> None:
    messages = pair("why", "a", "c")
    messages = EncodedGroup(
        PromptGroup([{"role": "user", "content": "why"}], messages.group.completions, [Pair()]), messages.sequences, 4
    )
    assert len(merge_by_prompt([pair("why", "a", "b"), messages], 16)) == 1


def test_a_row_alone_is_the_object_that_came() -> None:
    """Also where its own completions are alike: merging does not touch it."""
    alone = encoded("how", ["a", "a", "b"], [Pair(0, 2)])
    without = [pair("", "a", "b"), pair("", "a", "c")]
    given_rows = [pair("why", "a", "b"), alone, *without]
    assert all(a is b for a, b in zip(merge_by_prompt(given_rows, 16), given_rows, strict=True))


def test_a_row_whose_sides_are_identical_stays_by_itself() -> None:
    """In one group its two sides would be one completion, which cannot be preferred to itself."""
    tie = encoded("why", ["a", "a"], [Pair()])
    merged = merge_by_prompt([pair("why", "a", "b"), tie, pair("why", "c", "b")], 16)
    assert len(merged) == 2
    assert merged[1] is tie


def test_what_does_not_fit_starts_another_group() -> None:
    """At most 3: (ab), (bc) fit, (cd) starts a group, (ab) goes to that newest group only if it fits: it does not."""
    given_rows = [pair("why", *sides) for sides in ("ab", "bc", "cd", "ab")]
    assert [g.group.completions for g in merge_by_prompt(given_rows, 3)] == [("a", "b", "c"), ("c", "d"), ("a", "b")]
    large = encoded("why", list("abcd"), [Pair()])
    merged = merge_by_prompt([pair("why", "a", "b"), large, pair("why", "a", "b")], 3)
    assert [len(g.sequences) for g in merged] == [2, 4, 2]
    assert merged[1] is large


def test_a_limit_of_one_switches_merging_off() -> None:
    given_rows = [pair("why", "a", "b")] * 3
    assert all(a is b for a, b in zip(merge_by_prompt(given_rows, 1), given_rows, strict=True))
    assert count_merged([row.group for row in given_rows], 1) == 3
    assert count_merged([row.group for row in given_rows], 2) == 1


def test_cut_sequences_are_counted_once() -> None:
    """(ab) cut in both, (ac) likewise: three different sequences, all cut; then (cd) with nothing cut."""
    given_rows = [pair("why", "a", "b", truncated=2), pair("why", "a", "c", truncated=2), pair("why", "c", "d")]
    (merged,) = merge_by_prompt(given_rows, 16)
    assert merged.truncated == 3
    assert len(merged.sequences) == 4


def known(prompt: str, completions: Sequence[str], **fields: object) -> EncodedGroup:
    """A row without stated pairs, of which something else is known."""
    return encoded(prompt, completions, [], **fields)


def test_rankings_are_reindexed_and_their_pairs_are_not_doubled() -> None:
    """Of c > a > b and b > d the first implies 3 pairs, the second 1, and there stay 4."""
    first = known("why", ["a", "b", "c"], rankings=[Ranking((0, 1, 2), (1, 2, 0), 2.0)])
    second = known("why", ["d", "b"], rankings=[Ranking((1, 0), (0, 1))])
    stated = pair("why", "a", "d")
    (merged,) = merge_by_prompt([first, second, stated], 16)
    group = merged.group
    assert group.completions == ("a", "b", "c", "d")
    assert group.rankings == (Ranking((0, 1, 2), (1, 2, 0), 2.0), Ranking((1, 3), (0, 1)))
    assert [(p.chosen, p.rejected, p.weight) for p in group.pairs] == [
        (2, 0, 2.0),
        (2, 1, 2.0),
        (0, 1, 2.0),
        (1, 3, 1.0),
        (0, 3, 1.0),
    ]


def test_what_is_known_of_completions_stays_beside_them() -> None:
    rated = known("why", ["a", "b"], ratings=[1.0, None])
    checked = known("why", ["c"], labels=[1.0])
    judged = known("why", ["s"], steps=[[Step("s", -1)]])
    described = known("why", ["d", "b"], attributes=[{"tone": 2.0}, {}])
    (merged,) = merge_by_prompt([rated, checked, judged, described], 16)
    group = merged.group
    assert group.completions == ("a", "b", "c", "s", "d")
    assert group.ratings == (1.0, None, None, None, None)
    assert group.labels == (None, None, 1.0, None, None)
    assert group.steps == ((), (), (), (Step("s", -1),), ())
    assert group.attributes == ({}, {}, {}, {}, {"tone": 2.0})
    (plain,) = merge_by_prompt([known("why", ["a"]), known("why", ["b"], ratings=[None])], 16)
    assert (plain.group.ratings, plain.group.labels, plain.group.attributes, plain.group.steps) == ((), (), (), ())


def test_completions_of_which_something_else_is_known_stay_two() -> None:
    """Two annotators' ratings of one text are two facts; the same fact twice is one completion."""
    given_rows = [known("why", ["a"], ratings=[rating]) for rating in (1.0, 2.0, 1.0, None)]
    (merged,) = merge_by_prompt(given_rows, 16)
    assert merged.group.completions == ("a", "a", "a")
    assert merged.group.ratings == (1.0, 2.0, None)
    assert len(merged.sequences) == 3
    assert count_merged([row.group for row in given_rows], 3) == 1
    assert count_merged([row.group for row in given_rows], 2) == 2


def test_read_outs_travel_with_their_sequences() -> None:
    """The same ids read at other places are another completion."""
    at = [dataclasses.replace(known("why", ["ab"], labels=[1.0]), readouts=((place,),)) for place in (4, 5, 4)]
    other = dataclasses.replace(known("why", ["c"], labels=[0.0]), readouts=((4, 3),))
    (merged,) = merge_by_prompt([*at, other], 16)
    assert merged.readouts == ((4,), (5,), (4, 3))
    assert merge_by_prompt([pair("why", "a", "b"), pair("why", "a", "c")], 16)[0].readouts == ()


def test_a_ranking_with_a_completion_twice_stays_by_itself() -> None:
    """Two that have no rank form no pair, and still they cannot be one place of the ranking."""
    twice = known("why", ["a", "b", "b"], rankings=[Ranking((0, 1, 2), (0, None, None))])
    merged = merge_by_prompt([pair("why", "a", "b"), twice, pair("why", "a", "c")], 16)
    assert [group is twice for group in merged] == [False, True]


def test_many_rows_of_one_prompt_take_one_pass() -> None:
    """20,000 rows of one prompt with ever new completions: quadratic work would not end within a test's patience."""
    groups = [PromptGroup("why", [f"{n}", f"{n + 1}"], [Pair()]) for n in range(20_000)]
    assert count_merged(groups, 20_000) == 2
    assert count_merged(groups, 16) == 1334


def test_systems_are_kept_and_keep_nothing_apart() -> None:
    """The text "a" is by m in one row and unknown in the other; "b" is by n and by o: whose it is cannot be told."""
    found = merge_by_prompt(
        [
            pair("why", "a", "b", systems=("m", "n")),
            pair("why", "c", "a"),
            pair("why", "b", "c", systems=("o", "p")),
        ],
        8,
    )
    (merged,) = found
    assert dict(zip(merged.group.completions, merged.group.systems, strict=True)) == {"a": "m", "b": None, "c": "p"}
    (plain,) = merge_by_prompt([pair("why", "a", "b"), pair("why", "c", "a")], 8)
    assert plain.group.systems == ()
