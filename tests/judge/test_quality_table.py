"""What a person reads of a judge's quality: all figures, in 80 columns, with what should not be overlooked."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from rewardlab.judge.chat import Usage
from rewardlab.judge.quality import JudgedPair, measure_quality, rank_systems, win_rates
from rewardlab.judge.quality_table import render_quality, render_systems
from rewardlab.judge.verdicts import Abstention, PairReading, PairVerdict


def shown(renderable) -> str:
    told = io.StringIO()
    Console(width=80, file=told).print(renderable)
    return told.getvalue()


def pair(index: int, as_given: str, swapped: str, human: str | None, lengths, systems=("m", "n")) -> JudgedPair:
    choice = as_given if as_given == swapped else "tie"
    readings = (PairReading(as_given), PairReading(swapped))  # type: ignore[arg-type]
    p_first = {"first": 0.8, "second": 0.2, "tie": 0.5}[choice]
    verdict = PairVerdict(choice, p_first, *readings)  # type: ignore[arg-type]
    return JudgedPair(f"p{index}", verdict, human, lengths, systems, ("easy", "hard")[index % 2])  # type: ignore[arg-type]


def biased(number: int) -> list[JudgedPair]:
    """A judge that likes the longer, its own, and what comes first; people do not care."""
    generator = np.random.default_rng(0)
    found = []
    for index in range(number):
        human = ("first", "second")[int(generator.integers(2))]
        lengths = (int(generator.integers(100, 900)), int(generator.integers(100, 400)))
        longer = "first" if lengths[0] > lengths[1] else "second"
        readings = ("first", "second") if generator.random() < 0.3 else (longer, longer)
        found.append(pair(index, *readings, human, lengths))
    refused = Abstention("refused", "I cannot")
    found.append(JudgedPair("q", PairVerdict(None, None, refused, refused, refused), None, (1, 2)))
    return found


def test_all_figures_are_shown_with_what_stands_out() -> None:
    quality = measure_quality(biased(120), Usage(calls=240, cached=2, cost=1.2), "m", seconds=60, resamples=200)
    text = shown(render_quality(quality))
    flat = " ".join(text.split())
    for words in (
        "comparisons: 121, prompts: 121",
        "agrees with people",
        "if the orders agree",
        "Cohen's kappa",
        "both orders agree",
        "chooses the longer",
        "coefficient",
        "prefers its own",
        "Brier score",
        "calibration error",
        "questions sent 240 questions from the cache 2 comparisons answered 120 price of this run 1.2",
        "price per comparison 0.01",
        "seconds per comparison 0.5",
        "by subset",
        "The judge likes what is shown first",
        "The judge chooses the longer completion more often than people do.",
        "The judge prefers the completions of m more often than people do.",
    ):
        assert words in flat, words
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_a_judge_that_only_likes_a_place_has_no_agreement_and_is_said_to_be_of_no_use() -> None:
    quality = measure_quality([pair(i, "first", "second", "first", (3, 3)) for i in range(40)], resamples=50)
    flat = " ".join(shown(render_quality(quality)).split())
    assert "agrees with people – – 0 50 %" in flat
    assert "This judge prefers what it is shown first: its verdicts cannot be used." in flat


def test_a_subset_of_few_comparisons_has_no_interval() -> None:
    quality = measure_quality([pair(i, "first", "first", "first", (3, 3)) for i in range(19)], resamples=50)
    text = shown(render_quality(quality))
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.split()[:1] in (["easy"], ["hard"])}
    assert lines["easy"][1:4] == ["10", "100.0", "%"]
    assert lines["easy"][4:8] == ["69.2", "%", "to", "100.0"]  # 0.025^(1/10)
    assert lines["hard"] == ["hard", "9", "100.0", "%", "–", "–"]


def test_few_prompts_and_no_labels_are_told() -> None:
    quality = measure_quality([pair(i, "first", "first", None, (3, 3)) for i in range(4)], resamples=20)
    flat = " ".join(shown(render_quality(quality)).split())
    assert "agreement cannot be measured" in flat
    assert "There are only 4 prompts" in flat
    assert "agrees with people" not in flat


def test_systems_are_shown_by_strength() -> None:
    pairs = [pair(i, *(("first",) * 2 if i % 3 else ("second",) * 2), None, (200 + i, 200)) for i in range(60)]
    ranking = rank_systems(pairs, resamples=50)
    text = shown(render_systems(ranking, win_rates(pairs, resamples=50)))
    lines = [line.split() for line in text.splitlines()]
    of_m = next(line for line in lines if line[:1] == ["m"])
    assert of_m[1] == f"{ranking.systems[0].elo.value:.0f}"
    assert of_m[-1] == "40/0/20"
    assert "m – n" in text
    assert "66.7 %" in text  # 40 of 60 won
    assert max(map(len, text.splitlines())) <= 80
    assert "won/tied/lost" not in shown(render_systems(None, win_rates(pairs, resamples=10)))


def test_what_systems_have_no_intervals_is_told() -> None:
    pairs = [pair(i, *(("first",) * 2 if i else ("second",) * 2), None, (200, 200)) for i in range(12)]
    text = " ".join(shown(render_systems(rank_systems(pairs, resamples=50), win_rates(pairs, resamples=20))).split())
    assert "Too many resamples have no finite strengths" in text
    assert "no length control: 12 comparisons, fewer than 30" in text
