"""How an ensemble is worded and laid out."""

from __future__ import annotations

from rich.console import Console

from rewardlab.evaluation.ensembles import evaluate_members
from rewardlab.evaluation.ensembles_table import ensemble_sentence, render_ensemble
from rewardlab.types import Pair, PromptGroup

ENSEMBLE = {"members": ["runs/a", "runs/[b]"], "how": "mean-std", "k": 0.5, "weights": None, "on": "calibrated"}


def shown(*groups: PromptGroup, members: list[list[list[float]]]) -> str:
    scores = [[min(of_one) for of_one in of_group] for of_group in members]
    result = evaluate_members(groups, scores, members, ENSEMBLE, resamples=50)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(render_ensemble(result))
    return captured.get()


def test_how_it_is_combined_in_words() -> None:
    assert ensemble_sentence(ENSEMBLE) == (
        "an ensemble of 2 (mean-std, k = 0.5) on the scale calibrated: runs/a; runs/[b]"
    )
    weighted = {**ENSEMBLE, "how": "weighted", "k": None, "weights": [2.0, 0.5]}
    assert "(weighted by 2, 0.5)" in ensemble_sentence(weighted)


def test_the_tables_hold_the_figures() -> None:
    groups = [PromptGroup(f"p{n}", ("x", "y"), (Pair(0, 1),)) for n in range(3)]
    members = [[[2.0, 2.0], [1.0, 1.0]], [[3.0, 1.0], [0.0, 2.0]], [[0.0, 0.0], [1.0, 5.0]]]
    text = shown(*groups, members=members)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert any(line.startswith("on a score 0.6667 ") and line.endswith(" 6") for line in lines)
    assert any(line.startswith("on a pair 1.3333 ") and line.endswith(" 3") for line in lines)
    assert any(line.startswith("the half with less 100.0 %") and line.endswith(" 2") for line in lines)
    assert any(line.startswith("they do not 100.0 %") and line.endswith(" 1") for line in lines)
    assert any(line.startswith("runs/[b] 33.3 %") for line in lines)
    assert "An ensemble of 2 (mean-std" in text
    assert max(map(len, text.splitlines())) <= 80


def test_without_pairs_there_is_one_table() -> None:
    text = shown(PromptGroup("p", ("x",)), members=[[[1.0, 3.0]]])
    assert "on a score" in text
    assert "accuracy" not in text


def test_a_single_pair_has_dashes() -> None:
    text = shown(PromptGroup("p", ("x", "y"), (Pair(0, 1),)), members=[[[2.0, 2.0], [1.0, 1.0]]])
    assert next(line.split() for line in text.splitlines() if "the half with more" in line)[-3:] == ["–", "–", "0"]
    assert "less minus more" not in text
