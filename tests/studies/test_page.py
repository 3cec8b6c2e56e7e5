"""The page is one well-formed, self-contained file whatever the numbers, and shows text as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.page_checker import PageChecker
from tests.studies.test_result import make_result

from rewardlab.cli.main import app
from rewardlab.studies.page import choose_examples, next_commands, render_page
from rewardlab.types import Pair, PromptGroup

HISTORY = [
    {"loss": 0.7, "accuracy": 0.5, "step": 1},
    {"eval_loss": 0.6, "eval_accuracy": 0.7, "step": 2},
    {"loss": 0.5, "accuracy": 0.75, "step": 2},
    {"train_runtime": 3.0, "step": 2},
]


def test_the_page_is_whole_and_loads_nothing():
    page = render_page(make_result([(1, 0), (2, 0.5), (0, 1), (0.3, 0)] * 3, log_history=HISTORY))
    checker = PageChecker(page)
    assert checker.values("src", "href", "data", "srcset") == []
    assert "script" not in checker.tags
    assert not re.search(r"url\(|@import|https?://", page)
    ids = checker.values("id")
    assert len(ids) == len(set(ids))
    assert checker.tags.count("svg") == checker.tags.count("desc") == 7
    assert 'class="card table stacked"' in page  # four columns are more than a phone has room for


def test_the_headline_figures():
    """3 of 4 right on every four: accuracy 75 %, (0.75 - 0.5) / (0.9 - 0.5) = 62 % of the way."""
    page = render_page(make_result([(1, 0), (2, 0.5), (0, 1), (0.3, 0)] * 3))
    assert re.search(r'class="big">62\s%', page)
    assert "75.0\u00a0%" in page
    assert "90.0\u00a0%" in page
    assert "All checks held" in page


def test_failed_checks_are_not_hidden():
    page = render_page(make_result([(1, 0)] * 4, ok=False))
    assert "Some checks failed" in page
    assert "All checks held" not in page


@pytest.mark.parametrize(
    "scores",
    [[(0, 0)], [(0, 0)] * 5, [(1e30, -1e30)] * 3, [(-1e6, 1e6), (1e-9, 0)], [(1, 0)]],
    ids=["one tie", "all ties", "huge", "mixed", "one pair"],
)
@pytest.mark.parametrize("history", [(), HISTORY, [{"loss": float("nan"), "accuracy": 0.0, "step": 0}]])
def test_extreme_values(scores, history):
    PageChecker(render_page(make_result(scores, log_history=history)))


def test_text_is_shown_as_text():
    nasty = "<script>alert(1)</script> & </p> ]]> {{ 7 * 7 }} \u202e"
    group = PromptGroup(nasty, (nasty + "a", nasty + "b"), (Pair(1, 0),), subset="<b>bold</b>")
    page = render_page(make_result([(1, 0)] * 2, groups=[group] * 2, folder="<i>folder</i>"))
    PageChecker(page)
    assert "<script" not in page
    assert "<b>" not in page
    assert "<i>" not in page
    assert "{{ 7 * 7 }}" in page


def test_the_examples_are_telling():
    """One sure win per subset, then a label against the truth, then a real mistake."""
    scores = [(5, 0), (6, 0), (7, 0), (8, 0), (1, 0), (1, 0), (1, 0), (1, 0), (0, 3), (0, 2), (9, 0)]
    utilities = [(1, 0)] * 8 + [(0, 1), (1, 0), (0, 1)]
    examples = choose_examples(make_result(scores, utilities=utilities))
    assert [e.sides[0].score for e in examples] == [5, 6, 7, 8, 0, 0]
    assert [e.right for e in examples] == [True] * 4 + [False] * 2
    assert "Chance drew this label" in examples[4].verdict
    assert "mistaken" in examples[5].verdict
    assert [(s.role, s.text) for s in examples[0].sides] == [("chosen", "yes"), ("rejected", "no way")]


def test_examples_of_a_reversed_pair_show_the_chosen_text_as_chosen():
    group = PromptGroup("p", ("bad", "good"), (Pair(1, 0),), subset="s")
    (example,) = choose_examples(make_result([(2, 1)], groups=[group]))
    assert [(s.role, s.text, s.score) for s in example.sides] == [("chosen", "good", 2), ("rejected", "bad", 1)]


def test_the_next_commands_exist():
    known = {command.callback.__name__ for command in app.registered_commands} | {"data"}
    for command, _ in next_commands(Path("demo")):
        assert command.split()[1] in known
