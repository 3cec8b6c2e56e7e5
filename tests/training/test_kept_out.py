"""Which rows are the same: to the letter, but for formatting, or not at all; and what models keep of earlier ones."""

from __future__ import annotations

import dataclasses
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from rewardlab.data.ledger import Ledger
from rewardlab.errors import DataError
from rewardlab.training.kept_out import (
    Kept,
    read_kept_out,
    replaced_rows,
    shared_prompts,
    without_formatting,
    without_prompts,
    without_repeats,
    write_kept_out,
)
from rewardlab.training.refresh import OldRun, read_old_run
from rewardlab.types import Pair, PromptGroup

USER = {"role": "user", "content": "Où est-ce?"}
EMPTY_SYSTEM = {"role": "system", "content": " "}


def _group(prompt: Any, good: str = "yes", bad: str = "no", *, tie: bool = False) -> PromptGroup:
    return PromptGroup(prompt, (good, bad), (Pair(tie=tie),))


@pytest.mark.parametrize(
    ("prompt", "same", "formatted"),
    [
        ("Où est-ce?", 1, 0),
        ((USER,), 1, 0),
        ("Où est-ce? ", 0, 1),
        ("Où  est-ce?\r\n", 0, 1),
        ("\ufeffOù est\u200b-ce?", 0, 1),
        (unicodedata.normalize("NFD", "Où est-ce?"), 0, 1),
        ((EMPTY_SYSTEM, USER), 0, 1),
        (({"role": "system", "content": "Be brief."}, USER), 0, 0),
        ("où est-ce?", 0, 0),
        ("Où est-ce", 0, 0),
    ],
)
def test_a_prompt_is_the_same_but_for_formatting(prompt: Any, same: int, formatted: int) -> None:
    measured, row = [_group("Où est-ce?")], _group(prompt, "other", "completions")
    kept = without_prompts([row], measured)
    assert kept == Kept([] if same or formatted else [row], same, formatted)
    assert shared_prompts([row], measured) == same + formatted


def test_rows_without_a_prompt_are_told_by_their_completions() -> None:
    held_out, seen, spaced = _group("", "yes", "no"), _group("", "yes", "never"), _group(" ", "no\n", "never")
    unseen, other = _group("", "a", "b"), _group("p")
    assert without_prompts([seen, spaced, unseen, other], [held_out]) == Kept([unseen, other], 1, 1)
    assert without_prompts([other], []) == Kept([other], 0, 0)
    assert shared_prompts([seen], [held_out]) == 0


def test_repeats_and_contradictions() -> None:
    old = [_group("p"), _group("q", tie=True), PromptGroup("o", ("x",), labels=(1.0,))]
    same, as_messages = _group("p"), _group(({"role": "user", "content": "p"},))
    turned, tied, other = _group("p", "no", "yes"), _group("p", tie=True), _group("p", "maybe", "no")
    tied_again = _group("q", "no", "yes", tie=True)
    checked, wrong = (PromptGroup("o", ("x",), labels=(label,)) for label in (1.0, 0.0))
    new = [same, as_messages, turned, tied, other, tied_again, checked, wrong]
    assert without_repeats(old, new) == (Kept([turned, tied, other, wrong], 4, 0), 2)


def test_repeats_but_for_formatting() -> None:
    """What formatting alone tells apart is still a lesson; the same lesson with a stray space is none."""
    lesson = _group("p", "a = 1\n  b", "a = 1 b")
    old = [_group("p"), lesson, PromptGroup("o", ("x",), labels=(1.0,))]
    spaced, checked = _group("p ", "yes\n", "no"), PromptGroup("o", ("x ",), labels=(1.0,))
    turned, lesson_turned = _group("p", "no ", "yes"), _group("p", "a = 1 b", "a = 1\n  b")
    kept, contradictory = without_repeats(old, [spaced, checked, turned, lesson, lesson_turned])
    assert (kept, contradictory) == (Kept([turned, lesson_turned], 1, 2), 2)
    assert without_repeats([_group("p")], [lesson])[0].groups == [lesson]


def test_texts_that_are_kept_stay_as_they_were_written() -> None:
    row = _group("p  ", "a\n\nb ")
    assert without_prompts([row], [_group("q")]).groups[0] is row
    assert without_formatting(row).prompt == ({"role": "user", "content": "p"},)
    assert without_formatting(_group((EMPTY_SYSTEM,))).prompt == ()


def test_the_account() -> None:
    ledger = Ledger(read=5, used=5)
    told = Kept([], 2, 1).account(ledger, "held out: its prompt is", "new ")
    assert told == [
        "2 new rows left out, held out: its prompt is",
        "1 new row left out, held out but for formatting: its prompt is",
    ]
    assert (ledger.used, ledger.dropped) == (2, 3)
    assert ledger.to_dict()["reasons"] == {"held out": 2, "held out but for formatting": 1}


def test_rows_that_ancestors_held_out_are_kept_and_proven(tmp_path: Path, reward_model: Path) -> None:
    before = [_group("a"), _group("b"), _group("a")]
    rows = replaced_rows(before, [_group("b")])
    assert rows == [_group("a")]
    assert write_kept_out(tmp_path, []) == []
    (source,) = write_kept_out(tmp_path, rows)
    old = read_old_run(reward_model)
    assert read_kept_out(old) == []
    run: OldRun = dataclasses.replace(old, folder=tmp_path, run={**old.run, "sources": [source]})
    assert read_kept_out(run) == rows
    (tmp_path / "training" / "kept_out.jsonl").write_text("{}")
    with pytest.raises(DataError, match="is not what it was"):
        read_kept_out(run)
