"""rewardlab.metrics.pairs: what is counted, how it is clustered, what is refused. Scores are given."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from rewardlab.errors import DataError
from rewardlab.metrics import (
    brier_score,
    evaluate_scores,
    expected_calibration_error,
    log_loss,
    longer_is_chosen,
    mean_margin,
    pairwise_accuracy,
    reliability,
    shorter_is_chosen,
)
from rewardlab.metrics.length_control import control_length
from rewardlab.types import Pair, PromptGroup, Ranking


def pair_group(prompt: str = "p", chosen: str = "aa", rejected: str = "b", **more) -> PromptGroup:
    return PromptGroup(prompt, (chosen, rejected), pairs=(Pair(0, 1),), **more)


def simulated(number: int = 400) -> tuple[list[PromptGroup], list[list[float]]]:
    """Pairs with prompts in common, subsets, ties and lengths that say nothing."""
    generator = np.random.default_rng(0)
    groups, scores = [], []
    for index in range(number):
        lengths = generator.integers(1, 9, 2)
        subset = ["easy", "hard"][index % 2]
        groups.append(pair_group(f"p{index // 3}", "x" * lengths[0], "y" * lengths[1], subset=subset, id=index))
        scores.append([float(round(generator.normal(1.0, 1.5), 1)), 0.0])
    return groups, scores


def test_by_hand() -> None:
    """Three pairs with margins 2, 0, -1: accuracy 1/3, one tie, margin 1/3; lengths 2:1, 3:3, 1:4.

    Log loss: (log(1 + e^-2) + log 2 + log(1 + e)) / 3.
    """
    groups = [pair_group("p", "aa", "b"), pair_group("q", "aaa", "bbb"), pair_group("r", "a", "bbbb")]
    result = evaluate_scores(groups, [[2.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert result.num_pairs == result.num_prompts == 3
    assert result.accuracy.value == pytest.approx(1 / 3)
    assert result.margin.value == pytest.approx(1 / 3)
    expected = (math.log1p(math.exp(-2)) + math.log(2) + math.log1p(math.e)) / 3
    assert result.log_loss.value == pytest.approx(expected)
    assert result.longer_wins.value == pytest.approx(1 / 3)
    assert result.shorter_wins.value == pytest.approx(1 / 3)
    assert result.ties == 1
    assert result.subsets == {}


def test_values_are_those_of_the_metric_functions() -> None:
    groups, scores = simulated()
    result = evaluate_scores(groups, scores)
    chosen, rejected = np.array(scores).T
    lengths = np.array([[len(text) for text in group.completions] for group in groups]).T
    margins = chosen - rejected
    assert result.accuracy.value == pytest.approx(pairwise_accuracy(chosen, rejected), rel=1e-12)
    assert result.margin.value == pytest.approx(mean_margin(chosen, rejected), rel=1e-12)
    assert result.log_loss.value == pytest.approx(log_loss(margins), rel=1e-12)
    assert result.brier.value == pytest.approx(brier_score(margins), rel=1e-12)
    assert result.ece.value == pytest.approx(expected_calibration_error(margins), rel=1e-12)
    equal_mass = expected_calibration_error(margins, equal_mass=True)
    assert result.ece_equal_mass.value == pytest.approx(equal_mass, rel=1e-12)
    assert result.longer_wins.value == pytest.approx(longer_is_chosen(*lengths), rel=1e-12)
    assert result.shorter_wins.value == pytest.approx(shorter_is_chosen(*lengths), rel=1e-12)
    assert result.ties == np.sum(margins == 0) > 0


def test_json_is_exactly_as_designed() -> None:
    groups, scores = simulated()
    result = evaluate_scores(groups, scores, resamples=50, seed=3, confidence=0.9)
    out = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    for name in ("accuracy", "log_loss", "brier", "ece", "ece_equal_mass", "margin", "longer_wins", "shorter_wins"):
        assert set(out[name]) == {"value", "low", "high"}
        assert out[name]["low"] <= out[name]["value"] <= out[name]["high"]
    assert out["num_pairs"] == 400
    assert out["num_prompts"] == 134
    assert list(out["subsets"]) == ["easy", "hard"]
    assert set(out["subsets"]["easy"]) == {"num_pairs", "accuracy", "log_loss"}
    assert set(out["subsets"]["easy"]["accuracy"]) == {"value", "low", "high"}
    assert out["bootstrap"] == {"unit": "prompt", "confidence": 0.9, "resamples": 50, "seed": 3}
    assert "pairs" not in out
    assert (out["temperature"], out["calibrated"], list(out["reliability"])) == (None, {}, ["before"])
    assert set(out["length_controlled"]) == {
        "num_matched",
        "num_longer",
        "num_shorter",
        "matched_ratio",
        "matched_accuracy",
        "balanced_accuracy",
        "fit",
        "correlation",
        "by_length",
        "notes",
    }


def test_at_a_temperature_everything_else_is_as_without() -> None:
    groups, scores = simulated()
    margins = np.array(scores)[:, 0]
    plain, scaled = (evaluate_scores(groups, scores, temperature=t) for t in (None, 2.0))
    without = {name: value for name, value in scaled.to_dict().items() if name not in ("temperature", "calibrated")}
    without["reliability"] = {"before": without["reliability"]["before"]}
    assert without == {n: v for n, v in plain.to_dict().items() if n not in ("temperature", "calibrated")}
    out = json.loads(json.dumps(scaled.to_dict(), allow_nan=False))
    assert out["temperature"] == 2.0
    assert list(out["calibrated"]) == ["log_loss", "brier", "ece", "ece_equal_mass"]
    expected = {
        "log_loss": log_loss(margins, 2.0),
        "brier": brier_score(margins, 2.0),
        "ece": expected_calibration_error(margins, 2.0),
        "ece_equal_mass": expected_calibration_error(margins, 2.0, equal_mass=True),
    }
    assert {name: i.value for name, i in scaled.calibrated.items()} == pytest.approx(expected, rel=1e-12)
    halved = evaluate_scores(groups, [[a / 2, b / 2] for a, b in scores])
    for name, interval in scaled.calibrated.items():
        theirs = getattr(halved, name)
        assert (interval.low, interval.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert scaled.reliability["after"] == tuple(reliability(margins, 2.0))
    assert sum(bin.num_pairs for bin in scaled.reliability["before"]) == 400


def test_a_temperature_must_be_positive() -> None:
    with pytest.raises(ValueError, match="temperature must be > 0"):
        evaluate_scores([pair_group()], [[1.0, 0.0]], temperature=0.0)


def test_accuracy_is_also_given_without_the_help_of_length() -> None:
    """The evaluation passes lengths, wins and prompts on."""
    groups, scores = simulated()
    found = evaluate_scores(groups, scores, resamples=100).length_controlled
    lengths = np.array([[len(text) for text in group.completions] for group in groups])
    wins, longer = np.array(scores)[:, 0] > 0, lengths[:, 0] > lengths[:, 1]
    shorter = lengths[:, 0] < lengths[:, 1]
    assert (found.num_longer, found.num_shorter) == (longer.sum(), shorter.sum())
    assert found.balanced_accuracy.value == pytest.approx((wins[longer].mean() + wins[shorter].mean()) / 2)
    assert found.num_matched == np.sum(lengths[:, 0] == lengths[:, 1])  # up to nine characters: 9 to 8 is 10 to 9
    assert found.matched_accuracy.low < found.matched_accuracy.value < found.matched_accuracy.high
    assert found.fit.score.low > 0
    options = {"resamples": 100, "seed": 3, "confidence": 0.8}
    again = evaluate_scores(groups, scores, **options)
    prompts = [pair.prompt for pair in again.pairs]
    alone = control_length(np.array(scores)[:, 0], *lengths.T, prompts, {}, **options)
    assert again.length_controlled.by_length == alone.by_length != found.by_length


def test_every_pair_of_every_group_once() -> None:
    """A ranking a > b > c is three pairs of one prompt: (0,1), (0,2), (1,2), margins 1, 3, 2."""
    ranking = PromptGroup("p", ("a", "bb", "ccc"), pairs=(Pair(0, 1), Pair(0, 2), Pair(1, 2)), id="r7", subset="s")
    other = PromptGroup("q", ("a", "b"), pairs=(Pair(1, 0),))
    result = evaluate_scores([ranking, other], [[3.0, 2.0, 0.0], [0.0, 5.0]])
    assert [pair.margin for pair in result.pairs] == [1.0, 3.0, 2.0, 5.0]
    assert (result.num_pairs, result.num_prompts) == (4, 2)
    second = result.pairs[1]
    assert (second.group, second.pair, second.id, second.subset) == (0, Pair(0, 2), "r7", "s")
    assert (second.chosen_score, second.rejected_score) == (3.0, 0.0)
    assert (second.chosen_length, second.rejected_length) == (1, 3)


def test_weights_and_margins_of_the_loss_do_not_count() -> None:
    """``weight`` and ``margin`` belong to the training loss: accuracy means the same with and without them."""
    groups, scores = simulated(30)
    weighted = [replace(group, pairs=(Pair(0, 1, margin=3.0, weight=9.0),)) for group in groups]
    assert evaluate_scores(weighted, scores).to_dict() == evaluate_scores(groups, scores).to_dict()


def test_subsets_add_up_to_the_whole() -> None:
    """Pairs without a subset get a line of their own; nothing is left out of the table."""
    groups = [pair_group("p", subset="a"), pair_group("q", subset="a"), pair_group("r")]
    result = evaluate_scores(groups, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert {name: (s.num_pairs, s.accuracy.value) for name, s in result.subsets.items()} == {
        "a": (2, 0.5),
        "(none)": (1, 1.0),
    }
    assert result.subsets["(none)"].accuracy.low is None  # one prompt


def test_a_subset_is_what_it_would_be_alone() -> None:
    groups, scores = simulated()
    whole = evaluate_scores(groups, scores)
    alone = evaluate_scores(groups[::2], scores[::2])
    assert whole.subsets["easy"].accuracy == alone.accuracy
    assert whole.subsets["easy"].log_loss == alone.log_loss


def test_pairs_of_one_prompt_are_one_cluster() -> None:
    """Ten copies of each pair under the same prompt add no information: the interval stays as wide.

    As ten prompts each they would claim about 1/sqrt(10) of the width.
    """
    groups, scores = simulated()
    groups = [replace(group, prompt=f"own {index}") for index, group in enumerate(groups)]
    once = evaluate_scores(groups, scores).accuracy
    copied = evaluate_scores(groups * 10, scores * 10).accuracy
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_text_and_message_prompts_that_render_alike_are_one_cluster() -> None:
    groups = [pair_group("hello"), pair_group("hello")]
    groups[1] = replace(groups[1], prompt=({"role": "user", "content": "hello"},))
    assert evaluate_scores(groups, [[1.0, 0.0]] * 2).num_prompts == 1


def test_rows_without_a_prompt_are_not_one_cluster() -> None:
    """Otherwise a set without prompts would be one cluster and have no interval at all."""
    groups = [pair_group(""), pair_group(""), PromptGroup((), ("a", "b"), pairs=(Pair(),))]
    result = evaluate_scores(groups, [[1.0, 0.0]] * 3)
    assert result.num_prompts == 3
    assert result.accuracy.low is not None


def test_one_prompt_has_no_interval() -> None:
    result = evaluate_scores([pair_group(), pair_group()], [[1.0, 0.0]] * 2)
    assert result.to_dict()["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert result.above_length_baselines is None


def test_row_order_does_not_matter() -> None:
    groups, scores = simulated()
    order = np.random.default_rng(1).permutation(len(groups))
    shuffled = evaluate_scores([groups[i] for i in order], [scores[i] for i in order]).to_dict()
    straight = evaluate_scores(groups, scores).to_dict()
    for name in ("accuracy", "longer_wins", "shorter_wins"):  # sums of whole numbers: exact
        assert shuffled[name] == straight[name]
    assert shuffled["log_loss"] == pytest.approx(straight["log_loss"], rel=1e-12)
    assert shuffled["subsets"] == straight["subsets"]


@pytest.mark.parametrize(("wins", "above"), [(95, True), (62, False), (40, False)])
def test_above_length_baselines(wins: int, above: bool) -> None:
    """100 prompts, the longer chosen in 60: 95 wins are clearly above, 62 have a lower bound near 0.52."""
    groups = [pair_group(f"p{i}", *(("aa", "b") if i < 60 else ("a", "bb"))) for i in range(100)]
    result = evaluate_scores(groups, [[1.0, 0.0] if i < wins else [0.0, 1.0] for i in range(100)])
    assert result.best_length_baseline == 0.6
    assert result.above_length_baselines is above


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[1.0, 0.0], [math.nan, 0.0]], "b.jsonl:2: the score of completion 0 is nan, expected a finite number"),
        ([[1.0, math.inf], [0.0, 0.0]], "a.jsonl:1: the score of completion 1 is inf"),
        ([[1.0, 0.0]], "2 groups but 1 lists of scores"),
        ([[1.0, 0.0], [1.0]], "b.jsonl:2: 2 completions but 1 scores"),
    ],
)
def test_scores_that_cannot_be_trusted_are_refused(scores, said: str) -> None:
    groups = [pair_group(source="a.jsonl:1"), pair_group(source="b.jsonl:2")]
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        evaluate_scores(groups, scores)
    assert caught.value.hint


def test_no_rows() -> None:
    with pytest.raises(DataError, match="no pairs to evaluate"):
        evaluate_scores([], [])


def test_ties_are_no_preference() -> None:
    """Without them every metric is the same; they are counted, and are not pairs with equal scores."""
    groups, scores = simulated(60)
    tied = [pair_group(f"t{i}", "aaaa", "b") for i in range(20)]
    tied = [replace(group, pairs=(Pair(0, 1, tie=True),)) for group in tied]
    plain = evaluate_scores(groups, scores)
    both = evaluate_scores([*tied[:10], *groups, *tied[10:]], [*[[5.0, 0.0]] * 10, *scores, *[[0.0, 0.0]] * 10])
    assert plain.tied_labels == 0
    assert "tie_aware" not in plain.to_dict()
    assert both.tied_labels == both.to_dict()["tied_labels"] == 20
    without = {name: value for name, value in both.to_dict().items() if name not in ("tied_labels", "tie_aware")}
    assert without == {name: value for name, value in plain.to_dict().items() if name != "tied_labels"}
    assert len(both.pairs) == both.num_pairs == 60


def test_tie_aware_by_hand() -> None:
    """Ties differ by 0.5 and 2, preferences by 1, 3 (the wrong way round) and 2.

    0.5 is smaller than all three, 2 than 3 and as large as 2: AUC (3 + 1 + 1/2) / 6.
    """
    tied = [replace(pair_group(f"t{i}"), pairs=(Pair(0, 1, tie=True),)) for i in range(2)]
    groups = [*tied, *(pair_group(f"p{i}") for i in range(3))]
    found = evaluate_scores(groups, [[0.0, 0.5], [2.0, 0.0], [1.0, 0.0], [0.0, 3.0], [2.0, 0.0]]).tie_aware
    assert found.auc.value == pytest.approx(4.5 / 6)
    assert found.difference_of_ties.value == pytest.approx(1.25)
    assert found.difference_of_preferences.value == pytest.approx(2.0)
    json.dumps(found.to_dict(), allow_nan=False)


def test_tie_aware_does_not_depend_on_which_side_a_tie_has_first() -> None:
    generator = np.random.default_rng(2)
    tie = [bool(t) for t in generator.random(80) < 0.3]
    groups = [replace(pair_group(f"p{i}"), pairs=(Pair(0, 1, tie=t),)) for i, t in enumerate(tie)]
    scores = [[float(generator.normal() * (0.3 if t else 1.0)), 0.0] for t in tie]
    turned = [[b, a] if t else [a, b] for t, (a, b) in zip(tie, scores, strict=True)]
    found = evaluate_scores(groups, scores)
    assert evaluate_scores(groups, turned).to_dict() == found.to_dict()
    assert found.tie_aware.auc.low > 0.5
    assert found.tie_aware.difference_of_ties.high < found.tie_aware.difference_of_preferences.low


def test_soft_labels_count_as_what_they_prefer() -> None:
    soft = replace(pair_group(), pairs=(Pair(0, 1, p_chosen=0.7),))
    assert evaluate_scores([soft], [[1.0, 0.0]]).to_dict() == evaluate_scores([pair_group()], [[1.0, 0.0]]).to_dict()


def test_only_ties_are_refused() -> None:
    tied = replace(pair_group(), pairs=(Pair(0, 1, tie=True),))
    with pytest.raises(DataError, match="all pairs are ties"):
        evaluate_scores([tied, tied], [[1.0, 0.0]] * 2)


def test_rows_that_say_the_same_give_the_same_figures() -> None:
    """A soft label of 0.1 for the first side is one of 0.9 for the second; 1/2 is a tie, whichever side is first."""
    generator = np.random.default_rng(3)
    stated = [0.1, 0.5, 0.75, 0.0, 1.0] * 16
    lengths, margins = generator.integers(1, 90, (80, 2)), generator.normal(0.5, 1.0, 80)

    def rows(turned: bool):
        groups, scores = [], []
        for number, p in enumerate(stated):
            texts = ["x" * lengths[number, 0], "y" * lengths[number, 1]]
            pair, of_row = Pair(0, 1, p_chosen=1 - p if turned else p), [float(margins[number]), 0.0]
            groups.append(PromptGroup(f"p{number}", texts[::-1] if turned else texts, pairs=(pair,)))
            scores.append(of_row[::-1] if turned else of_row)
        return groups, scores

    found, turned = (evaluate_scores(*rows(way), temperature=2.0).to_dict() for way in (False, True))
    assert found == turned
    assert (found["num_pairs"], found["tied_labels"]) == (64, 16)
    likelier = [m if p > 0.5 else -m for m, p in zip(margins, stated, strict=True) if p != 0.5]
    assert found["accuracy"]["value"] == pytest.approx(np.mean(np.array(likelier) > 0))
    plain = [
        replace(g, pairs=(Pair(0, 1, tie=True) if p == 0.5 else Pair(0, 1) if p > 0.5 else Pair(1, 0),))
        for g, p in zip(rows(False)[0], stated, strict=True)
    ]
    assert evaluate_scores(plain, rows(False)[1], temperature=2.0).to_dict() == found


def test_a_pair_is_told_with_the_likelier_side_as_chosen() -> None:
    soft = PromptGroup("p", ("aa", "b"), pairs=(Pair(0, 1, p_chosen=0.25, votes=(1, 3, 2)),))
    (pair,) = evaluate_scores([soft], [[1.0, 4.0]]).pairs
    assert (pair.pair.chosen, pair.pair.rejected, pair.pair.p_chosen, pair.pair.votes) == (1, 0, 0.75, (3, 1, 2))
    assert (pair.margin, pair.chosen_length, pair.rejected_length) == (3.0, 1, 2)


def test_only_even_soft_labels_are_refused() -> None:
    even = replace(pair_group(), pairs=(Pair(0, 1, p_chosen=0.5),))
    with pytest.raises(DataError, match="all pairs are ties"):
        evaluate_scores([even], [[1.0, 0.0]])


def test_a_ranking_with_too_many_pairs_is_refused_with_the_limit() -> None:
    huge = PromptGroup("p", ["x"] * 1001, rankings=(Ranking(range(1001), range(1001)),), source="f.jsonl:3")
    with pytest.raises(DataError, match=r"f\.jsonl:3 ranks 1,001, which is 500,500 pairs, and at most 500,000"):
        evaluate_scores([pair_group(), huge], [[1.0, 0.0], [0.0] * 1001])
