"""The report: counts by hand on small sets, and the known facts of real ones."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.check import Lengths, check_groups
from rewardlab.data.encoding import EncodedGroup
from rewardlab.data.loading import read_groups
from rewardlab.errors import CompletionTooLongError, DataError
from rewardlab.types import Pair, PromptGroup, Ranking


def pair(prompt, chosen, rejected, **known):
    return PromptGroup(prompt, (chosen, rejected), (Pair(),), **known)


CLEAN = [pair("p1", "aa", "b"), pair("p2", "a", "bb"), pair("p3", "a", "b")]


def test_a_clean_set_has_counts_and_no_warnings():
    report = check_groups(CLEAN)
    assert (report.groups, report.pairs, report.completions, report.prompts) == (3, 3, 6, 3)
    assert (report.duplicates, report.contradictory, report.shared_prompts, report.tokens) == (0, 0, None, None)
    wins = report.longer_wins
    assert (wins.longer, wins.shorter, wins.equal) == (pytest.approx(1 / 3), pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert report.warnings == ()


def test_duplicates_are_the_repetitions():
    """Three times the same row: two repetitions. A text and the equal message are the same; the other order is not."""
    message = ({"role": "user", "content": "p"},)
    groups = [pair("p", "a", "b"), pair("p", "a", "b"), pair(message, "a", "b"), pair("p", "b", "c"), *CLEAN]
    report = check_groups(groups)
    assert report.duplicates == 2
    assert any("2 rows repeat" in warning for warning in report.warnings)


def test_contradictions_are_found_under_one_prompt_only_and_counted_once():
    groups = [
        pair("p", "a", "b", source="x:1"),
        pair("q", "b", "a", source="x:2"),  # another prompt
        pair("p", "b", "a", source="x:3"),
        pair("p", "b", "a", source="x:4"),  # the same contradiction again
    ]
    report = check_groups(groups)
    assert report.contradictory == 1
    assert report.contradictory_places == (("x:1", "x:3"),)
    assert any("x:1 and x:3" in warning for warning in report.warnings)


def test_ties_are_no_preferences_and_contradict_none():
    tie = PromptGroup("p", ("b", "a"), (Pair(tie=True),), source="x:2")
    report = check_groups([pair("p", "a", "b", source="x:1"), tie])
    assert (report.pairs, report.contents.ties, report.contradictory, report.duplicates) == (1, 1, 0, 0)
    assert check_groups([tie]).longer_wins is None


def test_rows_that_say_different_things_of_one_completion_are_no_duplicates():
    groups = [PromptGroup("p", ("a",), labels=(label,)) for label in (1.0, 0.0, 1.0)]
    assert check_groups(groups).duplicates == 1


def test_contradictions_inside_one_group_count_too():
    group = PromptGroup("p", ("a", "b", "a"), (Pair(0, 1), Pair(1, 2)), source="x:1")
    assert check_groups([group]).contradictory == 1


def test_prompts_of_the_other_set():
    report = check_groups(
        [*CLEAN, pair("p1", "c", "d"), pair("", "e", "f")], [pair("p1", "x", "y"), pair("", "x", "y")]
    )
    assert (report.shared_prompts, report.shared_groups) == (1, 2), "rows without a prompt share none"
    assert report.warnings[0].startswith("1 prompts (2 rows) also stand in the other set")
    assert check_groups(CLEAN, []).shared_prompts == 0


def test_few_prompts_and_many_rows():
    groups = [pair("p", f"a{n}", "b", source=f"x:{n}") for n in range(9)] + [pair("q", "a", "b", source="y:1")]
    report = check_groups(groups)
    assert report.largest_prompts == (("x:0", 9),)
    assert any(
        warning.startswith("few prompts, many rows: 10 rows share 2 prompts (5.0 each)") for warning in report.warnings
    )


@pytest.mark.parametrize(("chosen", "rejected", "side"), [("long", "s", "longer"), ("s", "long", "shorter")])
def test_a_length_shortcut_is_told(chosen, rejected, side):
    report = check_groups([pair(f"p{n}", chosen, rejected) for n in range(3)])
    assert any(f"the {side} completion is the chosen one in 100% of pairs" in warning for warning in report.warnings)


def test_missing_and_repeated_prompts_are_told():
    report = check_groups([pair("", "a", "b"), pair("Q:", "Q: a", "Q: b"), pair("Q:", "Q: a", "no")])
    assert (report.without_prompt, report.repeated_prompts) == (1, 1)
    assert any("1 rows have no prompt" in warning for warning in report.warnings)
    assert any("in 1 rows every completion begins with the whole prompt" in warning for warning in report.warnings)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50))
def test_quantiles_are_numpys(values):
    expected = np.quantile(values, [0.1, 0.5, 0.9, 0.99])
    lengths = Lengths.of(values)
    assert lengths is not None
    assert np.abs(np.array(lengths.values()[:4]) - expected).max() <= 0.5 + 1e-6  # rounded to whole characters
    assert lengths.max == max(values)
    assert Lengths.of([]) is None


def test_lengths_are_of_what_their_name_says():
    report = check_groups([pair("ppp", "cc", "r", subset="s"), PromptGroup("ppp", ("four",), subset="s")])
    assert {name: lengths.max for name, lengths in report.characters.items()} == {
        "prompt": 3,
        "completion": 4,
        "chosen": 2,
        "rejected": 1,
    }
    assert report.subsets == {"s": 2}


def test_what_truncation_cuts():
    groups = [pair(f"p{n}", "a", "b") for n in range(4)]
    encoded = [
        EncodedGroup(groups[0], ((1, 2, 3), (1, 2, 3)), 2, truncated=2),  # identical after truncation
        EncodedGroup(groups[1], ((1, 2, 4), (1, 2)), 1, truncated=1),
        CompletionTooLongError("too long"),
        DataError("the template refuses it"),
    ]
    report = check_groups(groups, encoded=encoded, max_length=3)
    cut = report.truncation
    assert (cut.max_length, cut.sequences, cut.truncated, cut.too_long, cut.refused, cut.identical) == (
        3,
        4,
        3,
        1,
        1,
        1,
    )
    assert report.tokens.max == 3
    told = " ".join(report.warnings)
    for part in (
        "3 of 4 sequences are longer than 3 tokens",
        "1 rows have a completion",
        "1 rows are refused",
        "1 pairs",
    ):
        assert part in told
    with pytest.raises(ValueError, match="3 encoded groups"):
        check_groups(groups, encoded=encoded[:3], max_length=3)


def test_the_report_is_json_and_an_empty_set_has_one():
    report = json.loads(json.dumps(check_groups([pair("p", "a", "b", source="x:1")] * 2).to_dict(), allow_nan=False))
    assert report["largest_prompts"] == [{"first": "x:1", "rows": 2}]
    assert report["longer_wins"] == {"longer": 0.0, "shorter": 0.0, "equal": 1.0}
    assert check_groups([]).to_dict()["pairs"] == 0


@pytest.mark.parametrize(
    ("name", "facts", "longer"),
    [
        ("ukp_convarg", {"groups": 9056, "prompts": 24, "duplicates": 196, "contradictory": 11}, 0.77),
        ("tulu_human", {"groups": 376, "prompts": 156}, 0.68),
        ("hh_harmless_test", {"groups": 1387, "duplicates": 0, "contradictory": 0}, 0.45),
        ("summedits", {"groups": 2101}, 0.41),
    ],
)
def test_the_known_facts_of_real_sets_are_found(data_root, name, facts, longer):
    """The sets' notes, counted by other people with other code; prompts and groups are counts of this part.

    The share of pairs whose longer side was chosen is noted for the full sets, and without an account of ties: hence
    the width.
    """
    report = check_groups(read_groups(data_root / name / "uniform.jsonl.gz").groups)
    assert {key: getattr(report, key) for key in facts} == facts
    wins = report.longer_wins
    assert wins.longer / (wins.longer + wins.shorter) == pytest.approx(longer, abs=0.035)


def rows_of_one(count, **columns):
    return [{"prompt": "p", "completions": [f"answer {i}" for i in range(count)], **columns}]


ONE_PROMPT = {
    "unrated completions": (rows_of_one, 1100),
    "rated completions": (lambda n: rows_of_one(n, scores=[i * 7 % n for i in range(n)]), 1100),
    "ranked and rated": (lambda n: rows_of_one(n, scores=list(range(n)), ranks=list(range(n, 0, -1))), 1100),
    "groups": (lambda n: [{"prompt": "p", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(n)], 100),
    "groups with one winner": (lambda n: [{"prompt": "p", "chosen": "g", "rejected": f"b {i}"} for i in range(n)], 100),
    "groups with one loser": (lambda n: [{"prompt": "p", "chosen": f"g {i}", "rejected": "b"} for i in range(n)], 100),
    "a chain": (lambda n: [{"prompt": "p", "chosen": f"a {i}", "rejected": f"a {i + 1}"} for i in range(n)], 100),
}


@pytest.mark.parametrize("name", ONE_PROMPT)
def test_what_one_prompt_has_is_checked_in_steps_linear_in_its_size(tmp_path, name):
    """Lines of Python run, counted: eight times as many rows take eight times as many, and a little more."""
    make, few = ONE_PROMPT[name]

    def steps(count):
        path = tmp_path / f"{count}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in make(count)))
        lines = 0

        def trace(frame, event, argument):
            nonlocal lines
            lines += 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            report = check_groups(read_groups(path).groups)
        finally:
            sys.settrace(before)
        assert report.completions == sum(len(row.get("completions", "ab")) for row in make(count))
        return lines

    assert steps(8 * few) < 12 * steps(few)


def test_pairs_of_a_huge_ranking_are_told_and_not_made():
    groups = [PromptGroup("p", [f"a {i}" for i in range(1001)], rankings=[Ranking(range(1001), range(1001))])]
    report = check_groups(groups)
    assert (report.pairs, report.contents.unlisted_pairs) == (0, 500_500)
    assert any("500,500 pairs are not made, at most 500,000 of a ranking" in warning for warning in report.warnings)
