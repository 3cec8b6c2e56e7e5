"""Readers of published judge outputs: small cases by hand, and the real outputs at the rates stated."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.judge.published_formats import FirstError, ScorePair, first_error_verdict, output_verdict, two_scores

ROOT = Path(__file__).resolve().parents[2]


def _judge_parsing() -> ModuleType:
    found = importlib.util.spec_from_file_location("judge_parsing", ROOT / "benchmarks" / "judge_parsing.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # its dataclass asks for it
    found.loader.exec_module(module)
    return module


judge_parsing = _judge_parsing()


def letter(text):
    found = output_verdict(text)
    return None if isinstance(found, str) else text[found.at]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("Output (a)", "a"),
        ("# Output (b) is better.", "b"),
        ("Some say Output (a) is better.\n\nTherefore, Output (b) is better.", "b"),
        ("Output (b) is better.\n\nOutput (a) is too short.", "b"),
        ("Therefore, Output (b) is a better summary than Output (a).", "b"),
        ("Output (a) is better.\nTherefore, Output (b) is better.", None),
        ("Output (a) is better. No, Output (b) is better.", None),
        ("It depends on whether Output (a) is better", None),
        ("It claims that Output (a) is better", None),
        ('Output (b) claims "Output (b) is better"', None),
        ("Since Output (b) states that 2 is odd, Output (a) is better.", "a"),
        ("If so, it is wrong. Output (b) is better.", "b"),
        ("Therefore, Output (a) is better.\n(Note: none.)", None),
        ("Output (c)", None),
        ("", None),
    ],
)
def test_llmbar_verdicts(text, meant):
    assert letter(text) == meant


def test_vicuna_scores_are_the_first_line():
    assert two_scores("\n9 7.5\nGood.") == ScorePair(9.0, 7.5, "Good.")
    assert two_scores("9, 7") == ScorePair(9.0, 7.0, "")
    assert two_scores("8,5") == "8,5"
    assert two_scores("Scores: 9 7\n9 7") == "Scores: 9 7"
    assert two_scores("9 7 5") == "9 7 5"


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("Step 1 is wrong.\nFinal Judgement: wrong\nFirst Error Step: 2\nError Analysis: it.", 2),
        ("Final Judgement: correct\nFirst Error Step: 1\n\nFinal Judgment: incorrect\n\nFirst Error Step: Step 3", 3),
        ("Final Judgement: correct\nFirst Error Step: N/A", None),
        ("Final Judgement: correct", None),
        ("Final Judgement: wrong\nError Analysis:\nFirst Error Step: 2", "unread"),
        ("Final Judgement: correct\nFirst Error Step: 2", "unread"),
        ("Final Judgement: wrong\nFirst Error Step: 2\nFirst Error Step: 3", "unread"),
        ("Final Judgement: maybe\nFirst Error Step: 2", "unread"),
        ("wrong", "unread"),
    ],
)
def test_mr_gsm8k_critiques(text, step):
    found = first_error_verdict(text)
    assert (found.step if isinstance(found, FirstError) else "unread") == step


@given(st.text())
def test_no_reader_raises(text):
    for read in (output_verdict, two_scores, first_error_verdict):
        read(text)


# --- the real outputs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(data_root):
    missing = [name for name in judge_parsing.SOURCES if not (data_root / name).is_file()]
    if missing:
        pytest.skip(f"no published judge outputs at {', '.join(missing)} in {data_root}")
    return judge_parsing.compare_all(data_root)


READ = {"LLMBar, comparisons": 0.99, "LLMBar, ratings": 1.0, "vicuna reviews": 0.96, "MR-GSM8K critiques": 1.0}
"""Source to the least share of answers that must be read."""


@pytest.mark.parametrize("source", READ)
def test_published_outputs_are_read(compared, source):
    mine = [one for one in compared if one.source == source]
    assert sum(one.read for one in mine) / len(mine) >= READ[source]


def test_what_is_read_otherwise_than_published_is_explained(compared):
    assert {one.cause for one in compared} <= {"", *judge_parsing.CAUSES}
    different = Counter((one.source, one.cause) for one in compared if one.outcome == judge_parsing.DIFFERENT)
    assert set(different) == {("LLMBar, comparisons", "(a) whenever it is named"), ("LLMBar, ratings", "equal ratings")}


def test_a_first_match_always_errs_towards_the_one_it_looks_for_first(data_root, compared):
    path = data_root / "llmbar" / "judge_outputs.jsonl.gz"
    count, wrong, for_a = judge_parsing.first_match_figures(judge_parsing.rows_of(path))
    assert count > 3000
    assert wrong == for_a > 0
