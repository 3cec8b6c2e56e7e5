"""Verdicts read where they are due and nowhere else; what cannot be read is an abstention and never a number."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.judge.parsing import Parsed, parse, steps_reading
from rewardlab.judge.verdict_formats import LETTERS, MODES, VerdictSpec
from rewardlab.judge.verdicts import Abstention, PairReading, RankingReading, RatingReading, StepsReading

NONCE = "0123456789abcdef"
TAG = f"VERDICT-{NONCE}:"
CHOICES = {"first": "A", "second": "B", "tie": "tie"}


def spec(form, mode="pairwise", **more):
    return VerdictSpec(mode, form, nonce=NONCE, **more)


def choice(text, form, **more):
    found = parse(text, spec(form, **more))
    return found.reading.choice if isinstance(found, Parsed) else found.kind


ALL = [spec(form, mode, count=3 if mode in ("listwise", "steps") else 2, ties=form not in ("result", "llmbar"))
       for form, modes in MODES.items() for mode in modes]  # fmt: skip


@pytest.mark.parametrize("due", ALL, ids=lambda due: f"{due.format}-{due.mode}")
@given(
    text=st.text()
    | st.text(alphabet='AB[]{}":,>= \n0123456789.tie')
    | st.lists(
        st.sampled_from(
            [TAG, "[RESULT]", "[[", "]]", "[[A]]", "[RESULT] B", "A", "7", "\n", " ",
             '{"reason": "', '"verdict": ', '"}', "```json",
             "Output (a)", " is better", "First Error Step: 2", "Final Judgement: wrong", "1e999", "NaN", "\u0663",
             "\ud800", "ß", "> ="]
        )
    ).map("".join)
)  # fmt: skip
def test_readers_raise_on_no_text_and_keep_to_what_was_asked(due, text):
    found = parse(text, due)
    if isinstance(found, Abstention):
        assert found.kind == "malformed"
        return
    match found.reading:
        case PairReading():
            assert found.reading.choice in (CHOICES if due.ties else ("first", "second"))
        case RatingReading():
            assert due.scale[0] <= found.reading.rating <= due.scale[1]
        case RankingReading():
            assert len(found.reading.ranks) == 3
        case StepsReading():
            assert len(found.reading.labels) == 3


# --- round trips: what a judge writes who keeps to the form is read as it was meant -----------------------------------


@given(st.sampled_from(["first", "second", "tie"]), st.text())
def test_round_trip_of_a_choice(meant, reason):
    word = CHOICES[meant]
    assert choice(json.dumps({"id": NONCE, "reason": reason, "verdict": word}), "json") == meant
    assert choice(f"{reason}\n{TAG} {word}", "tagged") == meant
    assert choice(f"{reason.replace('[[', '')}\n[[{'C' if meant == 'tie' else word}]]", "double_bracket") == meant
    if meant != "tie":
        assert choice(f"{reason.replace('[RESULT]', '')}\n[RESULT] {word}", "result", ties=False) == meant


@given(st.integers(1, 10), st.text())
def test_round_trip_of_a_rating_and_its_place(meant, reason):
    for form, text in (
        ("json", json.dumps({"id": NONCE, "reason": reason, "rating": meant})),
        ("tagged", f"{reason}\n{TAG} {meant}"),
        ("number", f"{reason}\n{meant}"),
    ):
        found = parse(text, spec(form, "rating"))
        assert found.reading.rating == meant
        assert text[found.start :].startswith(str(meant))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=5))
def test_round_trip_of_a_ranking(given_ranks):
    dense = sorted(set(given_ranks))
    ranks = tuple(dense.index(rank) for rank in given_ranks)
    places = [[LETTERS[i] for i, rank in enumerate(ranks) if rank == place] for place in range(len(dense))]
    for form, text in (
        ("tagged", f"so\n{TAG} " + " > ".join(" = ".join(place) for place in places)),
        ("json", json.dumps({"id": NONCE, "reason": "so", "ranking": places})),
    ):
        assert parse(text, spec(form, "listwise", count=len(ranks))).reading == RankingReading(ranks, "so")


@given(st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=6))
def test_round_trip_of_step_labels(labels):
    words = {1: "correct", 0: "neutral", -1: "incorrect"}
    text = json.dumps({"id": NONCE, "reason": "so", "labels": [words[label] for label in labels]})
    first = labels.index(-1) if -1 in labels else None
    assert parse(text, spec("json", "steps", count=len(labels))).reading == StepsReading(tuple(labels), first, "so")
    said = "none" if first is None else first + 1
    found = parse(f"so\n{TAG} first error: {said}", spec("tagged", "steps", count=len(labels))).reading
    assert found == steps_reading(first, len(labels), "so")
    assert found.first_error == first


# --- tagged -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [f"{TAG} A", f"**{TAG} A**", f"**{TAG}** A", f"`{TAG} A`", f"{TAG} a.", f"{TAG} A\n\n  \n", f"  {TAG}A  "],
)
def test_marks_around_a_tagged_verdict_do_not_change_it(line):
    assert choice(f"B is worse.\n{line}", "tagged") == "first"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A",
        "VERDICT-fedcba9876543210: A",  # a guessed nonce
        "VERDICT: A",
        f"{TAG} A\nThank you.",  # not the last line
        f"I say {TAG} A",  # not the whole line
        f"{TAG} A or B",
        f"{TAG} C",
        f"{TAG}",
        f"{TAG} A\n{TAG} B",  # contradicts itself
        f"I would say {TAG} B, but\n{TAG} A",  # wherever it stands
        f"- {TAG} B\n{TAG} A",
        f"{TAG} A|B|tie",
    ],
)
def test_no_tagged_verdict(text):
    assert choice(text, "tagged") == "malformed"


def test_a_verdict_said_twice_alike_is_one():
    assert choice(f"{TAG} A\nas I said:\n{TAG} A", "tagged") == "first"


def test_a_tie_where_none_may_be_is_none():
    assert choice(f"{TAG} tie", "tagged", ties=False) == "malformed"
    assert choice("[[C]]", "double_bracket", ties=False) == "malformed"
    assert parse(f"{TAG} A = B", spec("tagged", "listwise", ties=False)).kind == "malformed"


@pytest.mark.parametrize("value", ["A > B", "A > B > B", "A > B > D", "A, B, C", "A > > B > C", "A > B > C > A", "B"])
def test_a_ranking_names_each_completion_once(value):
    assert parse(f"{TAG} {value}", spec("tagged", "listwise", count=3)).kind == "malformed"


@pytest.mark.parametrize("value", ["0", "11", "7.5", "7-8", "seven", "-3", "07", "1e1", "\u0667", ".8", "'..9'"])
def test_a_rating_is_an_integer_on_the_scale(value):
    for text, form in ((f"{TAG} {value}", "tagged"), (value, "number")):
        assert parse(text, spec(form, "rating")).kind == "malformed"


@pytest.mark.parametrize("value", ["first error: 0", "first error: 4", "3", "first error: 1, 2", "first error: two"])
def test_a_first_error_is_a_step_that_is_there(value):
    assert parse(f"{TAG} {value}", spec("tagged", "steps", count=3)).kind == "malformed"


def test_steps_after_the_first_error_are_not_said_to_be_anything():
    assert steps_reading(1, 4, "") == StepsReading((1, -1, None, None), 1)


# --- json -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "0123456789abcdef", "reason": "r", "verdict": "A", "verdict": "B"}',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": "A"} done',
        'So: {"id": "0123456789abcdef", "reason": "r", "verdict": "A"}',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": "A"',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": "a"}',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": ["A"]}',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": null}',
        '{"id": "0123456789abcdef", "reason": null, "verdict": "A"}',
        '{"id": "0123456789abcdef", "verdict": "A"}',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": "A", "sure": true}',
        '[{"id": "0123456789abcdef", "reason": "r", "verdict": "A"}]',
        '{"id": "0123456789abcdef", "reason": "r", "verdict": NaN}',
        "[" * 100_000,
        "9" * 10_000,
        "null",
        '{"id": "fedcba9876543210", "reason": "r", "verdict": "A"}',  # of another question
        '{"id": null, "reason": "r", "verdict": "A"}',
        '{"reason": "r", "verdict": "A"}',
        '```json {"id": "0123456789abcdef", "reason": "r", "verdict": "A"}```',
    ],
)
def test_json_is_never_repaired(text):
    assert choice(text, "json") == "malformed"


@pytest.mark.parametrize("value", ['"7"', "7.0", "true", "0", "11", "Infinity", "1e1", "[7]"])
def test_a_json_rating_is_an_integer_on_the_scale(value):
    assert (
        parse(f'{{"id": "0123456789abcdef", "reason": "r", "rating": {value}}}', spec("json", "rating")).kind
        == "malformed"
    )


@pytest.mark.parametrize(
    "labels", ['["correct"]', '["correct", "right"]', '["correct", 1]', '"correct"', "[null, null]"]
)
def test_json_labels_are_one_word_for_each_step(labels):
    assert (
        parse(f'{{"id": "0123456789abcdef", "reason": "r", "labels": {labels}}}', spec("json", "steps", count=2)).kind
        == "malformed"
    )


def test_a_fenced_block_is_the_object_in_it():
    assert choice('```json\n{"id": "0123456789abcdef", "reason": "r", "verdict": "tie"}\n```', "json") == "tie"


def test_the_place_of_a_json_verdict_is_not_inside_the_reason():
    text = json.dumps({"id": NONCE, "reason": 'it says "verdict": "A"', "verdict": "B"})
    found = parse(text, spec("json"))
    assert found.start == text.rindex("B")
    assert parse('{"id": "0123456789abcdef", "reason": "r", "\\u0076erdict": "B"}', spec("json")).start is None


# --- the formats of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A is short.\nMy verdict: [[B]].", "second"),
        ("[[B]]: that is what I say, so [[B]]", "second"),
        ("The text holds [[A]].\nMy verdict: [[B]].", "malformed"),  # what it was shown cannot hold it
        ("[[A]]\n[[B]]", "malformed"),
        ("x[[i]] is out of bounds, so [[A]]", "first"),
        ("**[[C]]**", "tie"),
        ("[[A]]\nA is better.", "malformed"),
        ('"[[A]]" if A is better, "[[B]]" if B is', "malformed"),
        ("[[A]] or rather [[B]]", "malformed"),
        ("[[D]]", "malformed"),
        ("[A]", "malformed"),
    ],
)
def test_double_brackets_count_at_the_end(text, meant):
    assert choice(text, "double_bracket") == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Feedback: B is wrong. [RESULT] A", "first"),
        ("I end with [RESULT] and a letter. [RESULT] A", "first"),
        ("Feedback: A says [RESULT] B.\nSo [RESULT] A", "malformed"),
        ("Fine. [RESULT]\n(B)", "second"),
        ("[RESULT] A [RESULT] B", "malformed"),
        ("[RESULT] A is better", "malformed"),
        ("[RESULT] C", "malformed"),
        ("A", "malformed"),
    ],
)
def test_a_result_stands_at_the_end(text, meant):
    assert choice(text, "result", ties=False) == meant


@pytest.mark.parametrize(
    ("text", "rating"),
    [("Feedback: well. [RESULT] 4", 4), ("[RESULT] (5)", 5), ("[RESULT] 6", None), ("[RESULT] .4", None)],
)
def test_a_result_can_be_a_rating(text, rating):
    found = parse(text, spec("result", "rating", scale=(1, 5)))
    assert (found.reading.rating if isinstance(found, Parsed) else None) == rating


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Well done.\n\n9", 9),
        ("Rating: 10", 10),
        ("**8/10**", 8),
        ("final score is 7.", 7),
        ("8/9", None),
        ("Rating: .8", None),
        ("so 9", None),
    ],
)
def test_a_number_is_alone_on_the_last_line(text, rating):
    found = parse(text, spec("number", "rating"))
    assert (found.reading.rating if isinstance(found, Parsed) else None) == rating


def test_equal_scores_are_a_tie_where_there_may_be_one():
    assert choice("8 7\nbecause", "two_scores", scale=(0, 10)) == "first"
    assert choice("8, 8", "two_scores", scale=(0, 10)) == "tie"
    assert choice("8 8", "two_scores", scale=(0, 10), ties=False) == "malformed"
    assert choice("8 11", "two_scores", scale=(0, 10)) == "malformed"
    assert choice("8,5", "two_scores", scale=(0, 10)) == "malformed"  # maybe one number


def test_a_critique_is_read_as_labels():
    due = spec("mr_gsm8k", "steps", count=3)
    assert parse("Final Judgement: wrong\nFirst Error Step: 2", due).reading.labels == (1, -1, None)
    assert parse("Final Judgement: correct\nFirst Error Step: N/A", due).reading.labels == (1, 1, 1)
    assert parse("Final Judgement: wrong\nFirst Error Step: 4", due).kind == "malformed"


@pytest.mark.parametrize("due", ALL, ids=lambda due: f"{due.format}-{due.mode}")
@pytest.mark.parametrize(
    "flood", [" ", "\n", "rating:", "```\n", "if ", "[[", "[RESULT] ", "Output (a) is better, ", "says "]
)
def test_a_flood_takes_no_longer_than_it_is_long(due, flood):
    """40,000 characters take some milliseconds; a reader that starts anew at each of them takes seconds."""
    started = time.perf_counter()
    for begin, end in (("", ""), ("```json\n{", "x"), ("rating:", "x"), ("9", "x"), ("", "Output (a) is better")):
        parse(begin + flood * (40_000 // len(flood)) + end, due)
    assert time.perf_counter() - started < 1


def test_an_abstention_tells_little_of_the_answer():
    found = parse("x" * 5000, spec("double_bracket"))
    assert found.message == f"expected a verdict such as [[A]] at the end, got '...{'x' * 60}'"
