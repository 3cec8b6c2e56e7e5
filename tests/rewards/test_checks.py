"""Checks on texts whose verdict is known, by hand and from the authors of real data."""

from __future__ import annotations

import gzip
import json

import pytest

from rewardlab.errors import ConfigError, DataError
from rewardlab.rewards.checks import (
    column_of,
    exact_match,
    has_tags,
    length_between,
    matches_format,
    valid_json,
)


def verdict(check, completion, **columns):
    (found,) = check(prompts=["?"], completions=[completion], **{name: [value] for name, value in columns.items()})
    return found


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("The total is 1,234.50 dollars.", "1234.5", 1),
        ("so it is $5.", "5", 1),
        ("-$5", "-5", 1),
        ("\u22123 degrees", "-3", 1),  # a minus sign, not a hyphen
        ("17-7", "7", 1),  # the dash is no sign here
        ("first 3, then 4", "3", 0),
        ("x = 3/4", "0.75", 1),
        ("2e3", "2000", 1),
        (".5", "1/2", 1),
        ("72", "<<48+24=72>>72 clips.\n#### 72", 1),
        ("0.1 + 0.2 = 0.3", "0.3", 1),
        ("100,000,000", "100000000", 1),
        ("5/0", "0", 0),
        ("1e999999999", "1", 0),
        ("50%", "50", 1),
        ("no number", "1", 0),
        ("", "1", 0),
    ],
)
def test_the_last_number(completion, answer, right):
    assert verdict(exact_match("number"), completion, answer=answer) == right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("  Paris. ", "paris", 1),
        ("New\n York", "new york", 1),
        ("Cafe\u0301", "Café", 1),  # an accent of its own
        ("Paris, France", "Paris", 0),
        ("?!", "?!", 1),
        ("?", "!", 0),
        ("", "a", 0),
    ],
)
def test_the_whole_text(completion, answer, right):
    assert verdict(exact_match("text"), completion, answer=answer) == right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        (r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}", 1),
        (r"so $\boxed{\dfrac{1}{2}}$.", r"\boxed{\frac{1}{2}}", 1),
        (r"first \boxed{1}, no, \boxed{2}", "2", 1),
        (r"first \boxed{1}, no, \boxed{2}", "1", 0),
        (r"\boxed{1,000}", "1000.0", 1),
        (r"\boxed{12 \text{ cm}}", "12cm", 1),
        (r"\boxed{\left( a, b \right)}", "(a,b)", 1),
        ("2", "2", 0),  # not in a box
        (r"\boxed{2", "2", 0),
        (r"\boxed{}", "2", 0),
    ],
)
def test_the_last_box(completion, answer, right):
    assert verdict(exact_match("boxed"), completion, answer=answer) == right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("The answer is (B).", "B", 1),
        ("Answer: C", "c", 1),
        ("**Answer:** D because A is wrong", "D", 1),
        ("The answer is A. No, the answer is B.", "B", 1),
        ("B", "B", 1),
        ("B. Paris", "B", 1),
        ("I weigh (A) against (C) and take (C)", "C", 1),
        ("The answer is a number", "A", 0),  # an article is no choice
        ("none of them", "A", 0),
    ],
)
def test_the_choice(completion, answer, right):
    assert verdict(exact_match("choice"), completion, answer=answer) == right


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ('{"a": [1,2]}', "{'a': [1, 2]}", 1),
        ("None", "None", 1),
        ("'O'", "'o'", 0),
        ("[1, 2", "[1, 2]", 0),
        ("__import__('os')", "1", 0),
        (r"'\d'", r"'\\d'", 1),
        ("(" * 5000, "1", 0),
    ],
)
def test_the_literal(completion, answer, right):
    assert verdict(exact_match("literal"), completion, answer=answer) == right


def test_an_answer_is_looked_for_where_it_is_extracted():
    check = exact_match("number", column="gold", extract=r"<answer>(.*?)</answer>")
    texts = ["<answer>4</answer> or 5", "4", "<answer>3</answer><answer>\n4</answer>"]
    assert check(prompts=["?"] * 3, completions=texts, gold=["4"] * 3) == [1.0, 0.0, 1.0]


def test_a_row_without_an_answer_has_no_verdict():
    check = exact_match("number")
    assert check(prompts=["?", "?"], completions=["1", "1"], answer=[None, 1]) == [None, 1.0]


def test_messages_are_read_as_text_is():
    completion = [{"role": "assistant", "content": "It is 4."}]
    assert verdict(exact_match("number"), completion, answer="4") == 1.0
    assert verdict(has_tags("a"), [{"role": "assistant", "content": "<a>x</a>"}]) == 1.0


def test_what_an_answer_cannot_be_compared_with_is_told():
    with pytest.raises(DataError, match="row 1: no answer of the kind 'number' in its column 'answer': 'many'"):
        exact_match("number")(prompts=["?"] * 2, completions=["1", "1"], answer=["1", "many"])
    with pytest.raises(ConfigError, match=r"'answer'.*is missing") as caught:
        exact_match()(prompts=["?"], completions=["1"], gold=["1"])
    assert "gold" in caught.value.hint
    with pytest.raises(ConfigError, match="no list of 2 entries"):
        column_of("answer", {"answer": ["1"]}, 2)
    with pytest.raises(ConfigError, match="no way 'maths'"):
        exact_match("maths")
    with pytest.raises(ConfigError, match="0 groups, expected 1"):
        exact_match(extract="x")
    with pytest.raises(ConfigError, match="no regular expression"):
        matches_format("(")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think>a\nb</think>\n<answer>c</answer>", 1),
        ("  <think></think><answer></answer>  ", 1),
        ("<think>a <b> c</think><answer>x < y</answer>", 1),
        ("so <think>a</think><answer>c</answer>", 0),
        ("<think>a</think> and <answer>c</answer>", 0),
        ("<answer>c</answer><think>a</think>", 0),
        ("<think>a<answer>c</answer></think>", 0),
        ("<think>a</think><think>b</think><answer>c</answer>", 0),
        ("<think>a</think><answer>c", 0),
        ("", 0),
    ],
)
def test_tags(text, right):
    assert verdict(has_tags("think", "answer"), text) == right


def test_a_format_is_of_the_whole_completion():
    check = matches_format(r"\d+ items?.*")
    assert [verdict(check, text) for text in (" 3 items\nand more ", "1 item", "so 3 items")] == [1, 1, 0]


def test_lengths_count_both_ends():
    assert [verdict(length_between(2, 3), "x" * n) for n in (1, 2, 3, 4)] == [0, 1, 1, 0]
    assert [verdict(length_between(maximum=2, unit="words"), text) for text in ("", "a  b", "a b c")] == [1, 1, 0]
    check = length_between(2, unit="tokens")
    assert [verdict(check, "?", completion_ids=ids) for ids in ([1], [1, 2], [1, 2, 3])] == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('{"a": 1, "b": null}', 1),
        ('Here:\n```json\n{"a": 1}\n```', 1),
        ("[1]", 0),
        ('{"b": 1}', 0),
        ('{"a": NaN}', 0),
        ("{'a': 1}", 0),
        ('{"a": 1', 0),
        ("[" * 100_000, 0),
    ],
)
def test_json_with_a_key(text, right):
    assert verdict(valid_json(required_keys=["a"]), text) == right


def test_json_of_any_kind():
    assert [verdict(valid_json(), text) for text in ("[1]", "3", "x")] == [1, 1, 0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: has_tags(),
        lambda: has_tags("a", "a"),
        lambda: has_tags("<a>"),
        lambda: length_between(5, 3),
        lambda: length_between(-1),
        lambda: length_between(unit="lines"),
    ],
)
def test_checks_that_mean_nothing_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_every_check_has_a_name_to_be_logged_by():
    checks = [exact_match("boxed"), has_tags("a"), matches_format("x"), length_between(), valid_json()]
    names = ["exact_match_boxed", "has_tags", "matches_format", "length_between", "valid_json"]
    assert [check.__name__ for check in checks] == names


def rows_of(path) -> list[dict]:
    if not path.is_file():
        pytest.skip(f"{path.name} of {path.parent.name} is not there")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("name", "how", "subset"),
    [("gsm8k/kwise", "number", "gsm8k-test"), ("cruxeval/uniform", "literal", "codellama-7b-t0.2-output")],
)
def test_verdicts_are_those_of_the_data_s_authors(data_root, name, how, subset):
    """GPT-3's solutions, judged by their authors on the final number; outputs of calls, judged by running an assert."""
    rows = [row for row in rows_of(data_root / f"{name}.jsonl.gz") if row["subset"] == subset]
    check = exact_match(how, column="gold")
    found, wanted = [], []
    for row in rows:
        count = len(row["completions"])
        found += check(prompts=[row["prompt"]] * count, completions=row["completions"], gold=[row["gold"]] * count)
        wanted += row["scores"]
    assert len(wanted) > 1000
    assert found == wanted
