"""What is chosen, against values computed by hand; the file that is written, and that it is training data."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy

from rewardlab.data.loading import load_groups
from rewardlab.errors import ConfigError, DataError
from rewardlab.monitoring.candidates import Candidate
from rewardlab.monitoring.keys import unlabelled_key
from rewardlab.monitoring.selecting import Measured, choose, measure, select_comparisons
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Pair, PromptGroup

WORDS = ("the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "long")


def drawn_pool(count: int, seed: int = 0) -> list[PromptGroup]:
    rng = Random(seed)
    texts = [tuple({" ".join(rng.choices(WORDS, k=rng.randint(1, 12))): 0 for _ in range(3)}) for _ in range(count)]
    return [PromptGroup(f"Write about {number}.", each, subset=f"s{number % 2}") for number, each in enumerate(texts)]


POOL = drawn_pool(12)


@pytest.fixture(scope="module")
def scorer(reward_model: Path) -> Scorer:
    return Scorer.from_pretrained(reward_model)


@pytest.fixture(scope="module")
def ensemble(scorer: Scorer, reward_model: Path) -> EnsembleScorer:
    """The model and another of the same trunk, whose head is bent."""
    import torch

    other = Scorer.from_pretrained(reward_model)
    head: Any = other.loaded.model.get_submodule("score")
    with torch.no_grad():
        head.weight.add_(torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1)))
    return EnsembleScorer([scorer, other], on="raw")


def test_the_measures_are_what_they_say(ensemble: EnsembleScorer) -> None:
    """Each from scores and features asked for one by one."""
    known = drawn_pool(6, seed=9)
    measured = measure(ensemble, POOL, known=known)
    assert list(measured.measures) == ["disagreement", "uncertainty", "novelty"]
    texts = np.concatenate(ensemble.features(known)).astype(np.float64)
    covariance = np.cov(texts.T, ddof=0)
    inverse = np.linalg.inv(covariance + 0.01 * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))
    assert len(measured.candidates) == sum(len(g.completions) * (len(g.completions) - 1) // 2 for g in POOL)
    for index in range(0, len(measured.candidates), 5):
        candidate = measured.candidates[index]
        group = POOL[candidate.group]
        assert candidate.key == unlabelled_key(group, candidate.first, candidate.second)
        (scores,), (members,) = ensemble.score_groups_members([group])
        margin = scores[candidate.first] - scores[candidate.second]
        margins = np.subtract(members[candidate.first], members[candidate.second])
        p_a = 1 / (1 + np.exp(-margin))
        away = ensemble.features([group])[0][[candidate.first, candidate.second]] - texts.mean(axis=0)
        distances = np.sqrt(np.einsum("ki,ij,kj->k", away, inverse, away))
        assert measured.margins[index] == pytest.approx(margin, abs=1e-4)
        assert measured.measures["disagreement"][index] == pytest.approx(margins.std(), abs=1e-4)
        assert measured.measures["uncertainty"][index] == pytest.approx(entropy([p_a, 1 - p_a]), abs=1e-4)
        assert measured.measures["novelty"][index] == pytest.approx(distances.mean(), rel=1e-3)


def measured_by_hand(prompts: str, **measures: list[float]) -> Measured:
    groups = [PromptGroup(prompt, (f"{i} x", f"{i} y")) for i, prompt in enumerate(prompts)]
    n = len(prompts)
    return Measured(
        groups=groups,
        candidates=[Candidate(i, 0, 1, f"{i:02}", prompt) for i, prompt in enumerate(prompts)],
        margins=np.linspace(-1, 1, n),
        temperature=2.0,
        measures={name: np.array(values) for name, values in measures.items()},
        missing={},
        directions=np.eye(n, dtype=np.float32),
        left_out={},
    )


def ids(selection: Any) -> list[int]:
    return [int(key) for key in selection.keys]


def test_ranks_are_added_by_their_weights() -> None:
    """Ranks 1, 2, 3 and 3, 1, 2: with weights 1 and 1 the sums are 4, 3, 5; with 3 and 1 they are 6, 7, 11."""
    measured = measured_by_hand("pqr", disagreement=[0.1, 5, 99], novelty=[7, 1, 2])
    assert ids(choose(measured, 3, weights={"disagreement": 1, "novelty": 1}, diverse=False)) == [2, 0, 1]
    assert ids(choose(measured, 3, weights={"disagreement": 3, "novelty": 1}, diverse=False)) == [2, 1, 0]
    chosen = choose(measured, 3, weights={"disagreement": 1, "novelty": 0}, diverse=False)
    assert (ids(chosen), chosen.weights, chosen.diverse) == ([2, 1, 0], {"disagreement": 1}, False)


def test_a_prompt_comes_again_only_when_the_others_are_used_up() -> None:
    measured = measured_by_hand("ppq", disagreement=[3, 2, 1])
    assert sorted(ids(choose(measured, 2))) == [0, 2]
    assert sorted(ids(choose(measured, 5))) == [0, 1, 2]


def test_equal_values_go_by_the_key_and_the_same_line_comes_last() -> None:
    measured = measured_by_hand("pqrs", disagreement=[1, 1, 1, 1])
    assert ids(choose(measured, 2)) == [0, 1]
    directions = measured.directions
    assert directions is not None
    directions[1] = -3 * directions[0]
    assert ids(choose(measured, 4)) == [0, 2, 3, 1]


def test_the_rows_say_why_and_the_sides_are_drawn(ensemble: EnsembleScorer) -> None:
    selection = select_comparisons(ensemble, POOL, 10)
    assert selection.keys == select_comparisons(ensemble, POOL[::-1], 10).keys
    again = select_comparisons(ensemble, [PromptGroup(g.prompt, g.completions[::-1]) for g in POOL], 10)
    assert [(row["a"], row["b"]) for row in again.rows] == [(row["a"], row["b"]) for row in selection.rows]
    assert [row["why"]["rank"] for row in selection.rows] == list(range(1, 11))
    assert len({row["prompt"] for row in selection.rows}) == 10
    for row in selection.rows[:3]:
        a, b = ensemble.score([row["prompt"]] * 2, [row["a"], row["b"]])
        assert row["why"]["margin"] == pytest.approx(a - b, abs=1e-4)
        assert row["why"]["p_a"] == pytest.approx(1 / (1 + np.exp(b - a)), abs=1e-4)
        assert min(row["why"]["disagreement"], row["why"]["novelty"]) > 0
        assert row["label"] is None
        assert row["subset"] in ("s0", "s1")
    measured = measure(ensemble, POOL)
    sides = [choose(measured, 10, seed=seed).rows[0]["a"] for seed in range(12)]
    assert len(set(sides)) == 2  # either side may be shown first


def test_what_is_known_trained_on_or_asked_for_is_left_out(scorer: Scorer, pairs: list[PromptGroup]) -> None:
    first = select_comparisons(scorer, POOL, 5)
    known = [POOL[0]]
    pool = [*POOL, pairs[0], POOL[1], PromptGroup("long", ("x", "word " * 400))]
    second = select_comparisons(scorer, pool, 1000, known=known, asked=set(first.keys) | {"other"})
    assert not set(second.keys) & set(first.keys)
    own = sum(len(g.completions) * (len(g.completions) - 1) // 2 for g in pool)
    assert len(second.keys) + sum(second.left_out.values()) == own
    reasons = {reason for reason, number in second.left_out.items() if number}
    assert reasons == {"known", "trained_on", "asked", "unreadable", "repeated"}
    assert second.left_out["trained_on"] == second.left_out["unreadable"] == 1
    told = second.to_dict()
    assert told["wanted"] == 1000
    assert told["num_selected"] == told["candidates"] == len(second.rows)
    assert "disagreement" in told["missing"]
    assert json.loads(json.dumps(told)) == told


def test_labels_of_the_pool_are_not_looked_at(scorer: Scorer) -> None:
    pool = [PromptGroup(g.prompt, g.completions, (Pair(1, 0),)) for g in POOL]
    other = [PromptGroup(g.prompt, g.completions, (Pair(0, 1, weight=3.0),)) for g in POOL]
    chosen = select_comparisons(scorer, pool, 4)
    assert chosen.candidates == len(POOL)
    assert chosen.rows == select_comparisons(scorer, other, 4).rows


def test_without_features_the_rest_decides_and_it_is_said(reward_model: Path) -> None:
    selection = select_comparisons(Scorer.from_pretrained(reward_model, engine="padded"), POOL, 3)
    assert set(selection.missing) == {"disagreement", "novelty", "diversity"}
    assert (set(selection.weights), selection.diverse) == ({"uncertainty"}, False)
    margins = [abs(row["why"]["margin"]) for row in selection.rows]
    assert margins == sorted(margins)
    assert selection.rows[0]["why"]["novelty"] is None


@pytest.mark.parametrize(
    ("pool", "k", "error", "message"),
    [
        (POOL, 0, ConfigError, "0 comparisons cannot be selected"),
        ([], 3, DataError, "no group has two completions"),
        ([PromptGroup("p", ("x",))], 3, DataError, "no group has two completions"),
        ([PromptGroup("p", ("x", "x"))], 3, DataError, "1 because both completions are the same"),
    ],
)
def test_nothing_to_choose(
    scorer: Scorer, pool: list[PromptGroup], k: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        select_comparisons(scorer, pool, k)


def test_the_entropy_keeps_its_order_where_probabilities_round_to_one() -> None:
    from rewardlab.monitoring.selecting import _entropy

    found = _entropy(np.array([0.0, 40.0, -41.0, 42.0, 2000.0]))
    assert found[0] == pytest.approx(np.log(2))
    assert (np.diff(found) < 0).all()


def test_the_file_becomes_training_data(scorer: Scorer, tmp_path: Path) -> None:
    turns = ({"role": "assistant", "content": "the sea"},)
    pool = [PromptGroup(({"role": "user", "content": "Hi \u00e9"},), (turns, "the wind")), *POOL]
    selection = select_comparisons(scorer, pool, 100)
    path = tmp_path / "to_label.jsonl"
    selection.write(path)
    with pytest.raises(DataError, match="not labelled yet"):
        load_groups(path)
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows == list(selection.rows)
    filled = [{**row, "label": ("a", "b", "tie")[number % 3]} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in filled), encoding="utf-8")
    groups = load_groups(path)
    assert [group.id for group in groups] == selection.keys
    assert [unlabelled_key(group, 0, 1) for group in groups] == selection.keys
    assert [(g.pairs[0].chosen, g.pairs[0].tie) for g in groups[:3]] == [(0, False), (1, False), (0, True)]
    # What has been labelled is known, and not asked for again.
    with pytest.raises(DataError, match="labelled already"):
        select_comparisons(scorer, pool, 1, known=groups)


def test_a_file_that_may_hold_labels_is_kept(scorer: Scorer, tmp_path: Path) -> None:
    selection = select_comparisons(scorer, POOL, 2)
    path = tmp_path / "to_label.jsonl"
    path.write_text("labels", encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already, and may hold labels"):
        selection.write(path)
    assert path.read_text(encoding="utf-8") == "labels"
    selection.write(path, overwrite=True)
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(ConfigError, match="there is no folder"):
        selection.write(tmp_path / "missing" / "to_label.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["to_label.jsonl"]
