"""Rows -> groups: each format in its forms, each way in which a row can be bad, and junk of any kind."""

from __future__ import annotations

import datetime
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.formats import FORMATS, parse_row, scored_text
from rewardlab.errors import ConfigError, DataError
from rewardlab.types import Pair


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be kind."}

# -- pairs -----------------------------------------------------------------------------------------------------------


def test_a_text_pair_stays_text():
    group = parse_row({"prompt": " Why? ", "chosen": "Because.", "rejected": "No."}, source="pairs.jsonl:17")
    assert (group.prompt, group.completions, group.pairs) == (" Why? ", ("Because.", "No."), (Pair(0, 1),))
    assert group.source == "pairs.jsonl:17"
    assert (group.id, group.subset, group.pairs[0].margin, group.pairs[0].weight) == (None, None, None, 1.0)


def test_the_optional_columns_are_kept():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": -0.5, "weight": 2, "subset": "math", "id": 7}
    group = parse_row(row)
    assert group.pairs == (Pair(0, 1, margin=-0.5, weight=2.0),)
    assert (group.subset, group.id) == ("math", 7)


def test_numbers_may_be_spelled_as_text_as_in_csv():
    group = parse_row({"prompt": "p", "chosen": "a", "rejected": "b", "margin": "0.25", "weight": " 2 "})
    assert group.pairs == (Pair(0, 1, margin=0.25, weight=2.0),)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("q")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
        # TRL, UltraFeedback: the sides repeat the prompt
        {"prompt": [user("q")], "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {"prompt": "q", "chosen": [user("q"), assistant("a")], "rejected": [user(" q\n"), assistant("b")]},
        # TRL's implicit prompt
        {"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {"prompt": None, "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        {"prompt": "", "chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("b")]},
        # hh-rlhf: whole transcripts; a prompt and the answers; a prompt and whole transcripts
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " a", "rejected": "b"},
        {"prompt": "\n\nHuman: q", "chosen": "a ", "rejected": "\n\nAssistant: b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"},
        {"prompt": "\n\nHuman: q", "chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "b"},
        # Arrow's missing keys; columns that mean nothing here
        {"prompt": [{**user("q"), "name": None}], "chosen": "a", "rejected": "b", "messages": [user("x")], "n": 3},
    ],
)
def test_one_preference_in_all_its_forms_is_one_conversation(row):
    """Whatever the habit of the data set, the same turns reach the chat template, hence the same score."""
    group = parse_row(row)
    expected = parse_row({"prompt": "q", "chosen": "a", "rejected": "b"})
    assert group.prompt_key == expected.prompt_key
    contents = [c if isinstance(c, str) else "|".join(m["content"] for m in c) for c in group.completions]
    assert contents == ["a", "b"]


def test_a_system_turn_in_front_of_the_repeated_prompt_belongs_to_the_prompt():
    sides = {"chosen": [SYSTEM, user("q"), assistant("a")], "rejected": [SYSTEM, user("q"), assistant("b")]}
    group = parse_row({"prompt": "q", **sides})
    assert group.prompt == (SYSTEM, user("q"))
    assert group.completions == ((assistant("a"),), (assistant("b"),))
    assert parse_row({"prompt": [SYSTEM, user("q")], **sides}) == group == parse_row(sides)


def test_conversations_that_part_early_keep_all_later_turns_as_the_answer():
    chosen = [user("q"), assistant("a"), user("more"), assistant("b")]
    group = parse_row({"chosen": chosen, "rejected": [user("q"), assistant("x")]})
    assert group.prompt == (user("q"),)
    assert group.completions == (tuple(chosen[1:]), (assistant("x"),))


def test_a_conversation_that_goes_on_from_the_other_keeps_its_answer():
    """All turns of the shorter side are common; its last one is its answer nevertheless."""
    longer = [user("q"), assistant("a"), user("more"), assistant("b")]
    group = parse_row({"chosen": longer[:2], "rejected": longer})
    assert group.prompt == (user("q"),)
    assert group.completions == ((assistant("a"),), tuple(longer[1:]))


def test_an_answer_in_a_transcript_may_have_several_turns():
    group = parse_row({"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a\n\nAssistant: b", "rejected": "c"})
    assert group.completions == ((assistant("a"), assistant("b")), "c")


def test_an_answer_in_a_transcript_may_begin_with_the_words_of_a_marker():
    group = parse_row({"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "Human: rights are", "rejected": "c"})
    assert group.completions == ("Human: rights are", "c")


def test_plain_texts_without_a_prompt_have_the_empty_prompt():
    """What both texts begin with is not taken for a prompt: it may be part of the answers."""
    group = parse_row({"chosen": "The cat sat.", "rejected": "The cat ran."})
    assert (group.prompt, group.completions) == ("", ("The cat sat.", "The cat ran."))


# -- rows to score ---------------------------------------------------------------------------------------------------


def test_completions_are_groups_without_pairs():
    assert parse_row({"prompt": "p", "completion": "a"}).completions == ("a",)
    group = parse_row({"prompt": "p", "completions": ["a", [assistant("b")], "a"]})
    assert (group.completions, group.pairs) == (("a", (assistant("b"),), "a"), ())


def test_the_format_can_be_stated():
    row = {"prompt": "p", "chosen": "a", "rejected": "b", "completions": ["c", "d", "e"]}
    assert len(parse_row(row).pairs) == 1
    assert parse_row(row, format="completions").completions == ("c", "d", "e")
    assert parse_row(row, format="implicit_pair").prompt == ""
    with pytest.raises(DataError, match="completion is missing"):
        parse_row(row, format="completion")
    with pytest.raises(ConfigError, match="'completionz'") as error:
        parse_row(row, format="completionz")
    assert all(name in error.value.hint for name in FORMATS)


def test_text_to_score_is_read_as_a_row_is():
    group = parse_row({"prompt": "\n\nHuman: q\n\nAssistant:", "completion": " a"})
    assert scored_text("\n\nHuman: q\n\nAssistant:", " a") == (group.prompt, group.completions[0])
    assert scored_text("q", "") == ("q", "")


# -- bad rows --------------------------------------------------------------------------------------------------------

PAIR = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "p", "chosen": "a"}, "rejected is missing"),
        ({"chosen": None, "rejected": "a"}, "chosen is missing"),
        ({"completion": "a"}, "prompt is missing"),
        ({"prompt": "p", "x": "x", "y": "y"}, "no known format"),
        ({}, "no known format"),
        (PAIR | {"chosen": ""}, "chosen is empty"),
        (PAIR | {"rejected": " \n"}, "rejected is empty"),
        (PAIR | {"chosen": [], "rejected": [assistant("b")]}, "chosen is empty"),
        ({"chosen": [], "rejected": [user("q"), assistant("b")]}, "chosen is empty"),
        ({"chosen": [user("q")], "rejected": [user("q"), assistant("b")]}, "chosen is empty"),
        (PAIR | {"prompt": [user("")]}, "prompt is empty"),
        ({"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": "a", "rejected": " "}, "rejected is empty"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant:"}, "rejected is empty"),
        (PAIR | {"chosen": "b"}, "identical sides"),
        ({"chosen": [user("q"), assistant("a")], "rejected": [user("q"), assistant("a")]}, "identical sides"),
        (PAIR | {"chosen": True}, "chosen is of the wrong type"),
        (PAIR | {"rejected": {"text": "b"}}, "rejected is of the wrong type"),
        (PAIR | {"prompt": 3}, "prompt is of the wrong type"),
        (PAIR | {"chosen": [assistant("a")]}, "different types"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "no"}, "different types"),
        (PAIR | {"prompt": ["p"]}, "broken messages"),
        (PAIR | {"prompt": [{"from": "human", "value": "p"}]}, "broken messages"),
        (PAIR | {"prompt": [{"role": "user", "content": None}]}, "broken messages"),
        (PAIR | {"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "broken messages"),
        (PAIR | {"prompt": [{"role": " ", "content": "p"}]}, "broken messages"),
        (PAIR | {"prompt": [user("p") | {"at": datetime.date(2026, 1, 1)}]}, "broken messages"),
        (PAIR | {"chosen": [user("p"), assistant("a")], "rejected": [assistant("b")]}, "different prompts"),
        ({"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("a")]}, "different prompts"),
        (PAIR | {"chosen": [user("x"), assistant("a")], "rejected": [user("y"), assistant("b")]}, "not an answer"),
        (PAIR | {"margin": math.nan}, "margin is not a finite number"),
        (PAIR | {"margin": "wide"}, "margin is not a finite number"),
        (PAIR | {"margin": True}, "margin is not a finite number"),
        (PAIR | {"margin": 10**400}, "margin is not a finite number"),
        (PAIR | {"weight": 0}, "weight is not positive"),
        (PAIR | {"weight": math.inf}, "weight is not a finite number"),
        (PAIR | {"id": 1.5}, "id is of the wrong type"),
        (PAIR | {"subset": ["a"]}, "subset is of the wrong type"),
        ({"prompt": "p", "completions": []}, "completions is empty"),
        ({"prompt": "p", "completions": "a"}, "completions is of the wrong type"),
        ({"prompt": "p", "completions": ["a", None]}, "completions is of the wrong type"),
        ({"prompt": "p", "completions": ["a", "b", []]}, "completions is empty"),
        ({"prompt": "p", "completion": []}, "completion is empty"),
        ({"prompt": "p", "completions": ["a", "b", ""], "scores": [1, 2, 3]}, "completions is empty"),
        ({"prompt": "p", "completions": ["a", " "], "labels": [1, 0.5]}, "completions is empty"),
        ({"prompt": "p", "completion": "", "label": 1}, "completion is empty"),
    ],
)
def test_a_bad_row_is_told_by_a_reason_that_can_be_counted(row, reason):
    """The part before ``": "`` is the same for every row that is bad in the same way."""
    with pytest.raises(DataError) as error:
        parse_row(row)
    assert error.value.message.partition(": ")[0] == reason


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.just("\n\nHuman: a\n\nAssistant:"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner, max_size=3)
        | st.builds(lambda role, content: {"role": role, "content": content}, inner, inner)
        | st.dictionaries(st.sampled_from(["text", "steps", "completions", "problem", "rank", "answer"]), inner)
    ),
    max_leaves=8,
)
columns = st.sampled_from(
    sorted(
        {name for kind in FORMATS.values() for columns in kind.columns for name in columns.split("|")}
        | {"margin", "weight", "id", "subset", "messages", "tie", "strength", "votes", "p_chosen", "chosen_rating"}
        | {"rejected_rating", "final_answer_correct", "higher_is_better"}
    )
)


@st.composite
def junk(draw):
    """The columns of one format, and some others, filled with anything."""
    kind = FORMATS[draw(st.sampled_from(list(FORMATS)))]
    needed = {draw(st.sampled_from(columns.split("|"))): draw(json_values) for columns in kind.columns}
    return needed | draw(st.dictionaries(columns, json_values, max_size=3))


@given(junk(), st.sampled_from(["auto", *FORMATS]))
def test_junk_is_a_good_group_or_a_reason_and_never_a_crash(row, format):
    try:
        group = parse_row(row, format=format)
    except DataError:
        return
    assert group.completions
    assert isinstance(group.prompt_key, str)
    for pair in group.pairs:
        assert pair.weight > 0
        assert pair.margin is None or math.isfinite(pair.margin)


# -- real data -------------------------------------------------------------------------------------------------------


def test_parsed_hh_prompts_equal_the_messages_the_data_set_gives_beside_them(data_root):
    """An independent oracle: ``messages`` was made by the people who converted the set."""
    from rewardlab.data.reading import iter_rows

    compared = 0
    for raw in iter_rows(data_root / "hh_harmless_test" / "uniform.jsonl.gz"):
        assert raw.row is not None
        try:
            group = parse_row(raw.row)
        except DataError:
            continue
        assert group.prompt == tuple(raw.row["messages"]), raw.name
        compared += 1
    assert compared > 1300


def test_hh_rows_give_the_same_group_as_whole_transcripts(data_root):
    """``prompt`` + answers and the original two transcripts are the same rows in two formats."""
    from rewardlab.data.reading import iter_rows

    compared = 0
    for raw in iter_rows(data_root / "hh_harmless_test" / "uniform.jsonl.gz"):
        row = raw.row or {}
        whole = {column: f"{row['prompt']} {row[column]}" for column in ("chosen", "rejected")}
        try:
            expected = parse_row(row)
        except DataError:
            continue
        group = parse_row(whole)
        # Answers that begin alike share turns, which then count as prompt: the conversations are still the same.
        if len(group.prompt) == len(expected.prompt):
            assert (group.prompt, group.completions) == (expected.prompt, expected.completions), raw.name
            compared += 1
    assert compared > 1300


def test_completions_to_score_may_be_empty():
    """A policy writes some, and the others of its row must not be lost with it."""
    said = [assistant("")]
    assert parse_row({"prompt": "p", "completions": ["a", "", " \n"]}).completions == ("a", "", " \n")
    messages = parse_row({"prompt": "p", "completions": [said, [assistant("b")]]}).completions
    assert messages == (tuple(said), (assistant("b"),))
    assert parse_row({"prompt": "p", "completion": ""}).completions == ("",)
    assert parse_row({"prompt": "\n\nHuman: p\n\nAssistant:", "completions": ["", "a"]}).completions == ("", "a")
