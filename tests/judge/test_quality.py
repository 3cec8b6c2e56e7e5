"""Quality of judges whose faults are known: each is found, at its size, and an honest judge has none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from rewardlab.errors import DataError
from rewardlab.judge.chat import Usage
from rewardlab.judge.quality import JudgedPair, measure_quality, rank_systems, win_rates
from rewardlab.judge.verdicts import Abstention, PairReading, PairVerdict

BACK = {"first": "second", "second": "first", "tie": "tie"}


def verdict(as_given: str, swapped: str | None = None, p_first: float | None = None) -> PairVerdict:
    """Of two orders, both told in the given order; a choice that differs is a tie."""
    swapped = swapped or as_given
    choice = as_given if as_given == swapped else "tie"
    readings = (PairReading(as_given, p_first), PairReading(swapped, p_first))  # type: ignore[arg-type]
    return PairVerdict(choice, p_first, *readings)  # type: ignore[arg-type]


def abstained(kind: str = "refused") -> PairVerdict:
    why = Abstention(kind, "no")  # type: ignore[arg-type]
    return PairVerdict(None, None, PairReading("first"), why, why)


def judged(number: int, of: PairVerdict, human: str | None = "first", **more) -> list[JudgedPair]:
    settings = {"lengths": (10, 20), **more}
    return [JudgedPair(f"p{i}", of, human, **settings) for i in range(number)]  # type: ignore[arg-type]


def drawn(number: int, rule, seed: int = 0, **more) -> list[JudgedPair]:
    """Pairs with a human choice, lengths and a random generator, judged by a rule of these."""
    generator = np.random.default_rng(seed)
    found = []
    for index in range(number):
        human = ("first", "second")[int(generator.integers(2))]
        lengths = tuple(int(n) for n in generator.integers(50, 500, 2))
        found.append(JudgedPair(f"p{index}", rule(human, lengths, generator), human, lengths, **more))  # type: ignore[arg-type]
    return found


def honest(human, lengths, generator):
    """Right in 8 of 10, whatever the order and the length."""
    return verdict(human if generator.random() < 0.8 else BACK[human])


def quality_of(pairs, **more):
    return measure_quality(pairs, **{"resamples": 300, **more})


def test_by_hand() -> None:
    """5 right, 2 wrong, 2 tied by the judge, 1 tied by people, 2 abstentions.

    Of the 10 with a verdict 7 are decided by both, 5 of them alike; three-way 5 of 10 are alike (no tie of both).
    """
    pairs = [
        *judged(5, verdict("first")),
        *judged(2, verdict("second")),
        *judged(2, verdict("first", "second")),
        *judged(1, verdict("second"), "tie"),
        *judged(1, abstained()),
        *judged(1, abstained("timeout")),
    ]
    found = quality_of(pairs)
    assert (found.num_pairs, found.num_labelled, found.judge_ties, found.human_ties) == (12, 12, 2, 1)
    assert (found.agreement.num_pairs, found.agreement.num_decided) == (10, 7)
    assert found.agreement.accuracy.value == pytest.approx(5 / 7)
    assert found.agreement.three_way.observed.value == pytest.approx(5 / 10)
    judge = ["first"] * 5 + ["second"] * 2 + ["tie"] * 2 + ["second"]
    human = ["first"] * 9 + ["tie"]
    assert found.agreement.three_way.kappa.value == pytest.approx(cohen_kappa_score(judge, human))
    assert (found.consistent.num_pairs, found.consistent.accuracy.value) == (8, pytest.approx(5 / 7))
    assert found.abstentions.num_pairs == 2
    assert found.abstentions.rate.value == pytest.approx(2 / 12)
    assert found.abstentions.by_kind == {"refused": 1, "timeout": 1}
    assert (found.self_preference, found.probability, found.cost, found.subsets) == (None, None, None, {})


def test_abstentions_are_in_no_other_figure() -> None:
    pairs = drawn(60, honest)
    without = quality_of(pairs).to_dict()
    more = [JudgedPair(f"p{i}", abstained(), "first", (1, 9)) for i in range(60)]
    together = quality_of([*pairs, *more]).to_dict()
    for part in ("agreement", "consistent", "position", "length", "judge_ties"):
        assert together[part] == without[part]
    assert together["abstentions"]["rate"]["value"] == 0.5


def test_only_abstentions_have_no_figures() -> None:
    found = quality_of(judged(3, abstained()))
    assert found.abstentions.rate.value == 1
    assert (found.agreement.accuracy, found.agreement.three_way, found.position, found.length) == (None,) * 4
    assert "agreement cannot be measured" in found.notes[0]
    json.dumps(found.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("readings", "leaning"),
    [
        (("first", "first"), 0),
        (("tie", "tie"), 0),
        (("first", "second"), 1),  # the first shown, both times
        (("first", "tie"), 1),
        (("tie", "second"), 1),
        (("second", "first"), -1),
        (("tie", "first"), -1),
        (("second", "tie"), -1),
    ],
)
def test_what_two_orders_say_of_the_place(readings: tuple[str, str], leaning: int) -> None:
    found = quality_of(judged(4, verdict(*readings)), resamples=10).position
    shares = (found.toward_first.value, found.consistency.value, found.toward_second.value)
    assert shares == {1: (1, 0, 0), 0: (0, 1, 0), -1: (0, 0, 1)}[leaning]
    assert found.advantage.value == leaning


def test_a_judge_that_likes_a_place_is_found_and_an_honest_one_is_not() -> None:
    def biased(human, lengths, generator):
        return verdict("first", "second") if generator.random() < 0.3 else honest(human, lengths, generator)

    found = quality_of(drawn(400, biased)).position
    assert found.direction == "first"
    assert found.advantage.low < 0.3 < found.advantage.high
    assert quality_of(drawn(400, honest)).position.direction is None

    def either(human, lengths, generator):
        return verdict(*(("first", "second") if generator.random() < 0.5 else ("second", "first")))

    uneven = quality_of(drawn(400, either)).position
    assert (uneven.consistency.value, uneven.direction) == (0, None)


def test_a_judge_that_likes_length_is_found_and_an_honest_one_is_not() -> None:
    def wordy(human, lengths, generator):
        longer = "first" if lengths[0] > lengths[1] else "second"
        return verdict(longer) if generator.random() < 0.4 else honest(human, lengths, generator)

    found = quality_of(drawn(500, wordy)).length
    assert found.difference.low > 0.1
    assert found.difference.value == pytest.approx(found.by_judge.value - found.by_humans.value)
    assert found.coefficient.low > 0.3
    fair = quality_of(drawn(500, honest)).length
    assert fair.difference.low < 0 < fair.difference.high
    assert fair.coefficient.low < 0 < fair.coefficient.high
    assert fair.num_with_human == fair.num_pairs <= 500


def test_length_does_not_depend_on_which_completion_came_first() -> None:
    pairs = drawn(80, honest, seed=2)
    turned = [
        JudgedPair(p.prompt, verdict(BACK[p.verdict.as_given.choice]), BACK[p.human], p.lengths[::-1]) for p in pairs
    ]
    one, other = quality_of(pairs).to_dict(), quality_of(turned).to_dict()
    assert other["length"]["longer"] == one["length"]["longer"]
    assert other["length"]["difference"] == one["length"]["difference"]
    assert other["length"]["coefficient"]["value"] == pytest.approx(one["length"]["coefficient"]["value"], abs=1e-9)


def test_a_judge_that_is_always_right_has_no_length_coefficient() -> None:
    """The human choice alone is right about every verdict: no coefficient is large enough."""
    found = quality_of(drawn(100, lambda human, lengths, generator: verdict(human)))
    assert found.agreement.accuracy.value == 1
    assert found.length.coefficient is None


def test_self_preference_is_against_people_on_the_same_pairs() -> None:
    """People prefer m's in 1 of 4, the judge in 3 of 4, one tie among these: (1 + 1 + 1/2 + 0) / 4 - 1/4 = 0.375."""
    pairs = [
        *judged(1, verdict("first"), "first", systems=("m", "n")),
        *judged(1, verdict("second"), "first", systems=("n", "m")),
        *judged(1, verdict("first", "second"), "second", systems=("m", "n")),
        *judged(1, verdict("second"), "second", systems=("m", "n")),
        *judged(5, verdict("first"), "second", systems=("n", "o")),
        *judged(5, verdict("first"), None, systems=("m", "o")),
        *judged(5, verdict("first"), "second", systems=("m", "m")),
        *judged(5, verdict("first"), "second", systems=("m", None)),
        *judged(5, abstained(), "second", systems=("m", "n")),
    ]
    found = quality_of(pairs, self_name="m").self_preference
    assert found.num_pairs == 4
    assert (found.by_judge.value, found.by_humans.value, found.difference.value) == (0.625, 0.25, 0.375)
    missing = quality_of(pairs, self_name="gpt")
    assert missing.self_preference is None
    assert "of gpt with another; the systems are m, n, o" in missing.notes[0]
    assert "no row names its systems" in quality_of(judged(2, verdict("first")), self_name="m").notes[0]


def test_probabilities_against_people() -> None:
    """Right with 0.9 three times, wrong with 0.9 once: Brier (3 * 0.01 + 0.81) / 4, calibration error 0.9 - 0.75."""
    pairs = [
        *judged(2, verdict("first", p_first=0.9)),
        *judged(1, verdict("second", p_first=0.1), "second"),
        *judged(1, verdict("second", p_first=0.1), "first"),
        *judged(3, verdict("first", p_first=1.0), "tie"),
        *judged(3, verdict("first")),
    ]
    found = quality_of(pairs).probability
    assert found.num_pairs == 4
    assert found.brier.value == pytest.approx(0.21)
    assert found.ece.value == pytest.approx(0.15)
    sure = quality_of(judged(4, verdict("first", p_first=1.0))).probability
    assert (sure.brier.value, sure.ece.value) == pytest.approx((0, 0), abs=1e-9)


def test_cost_is_of_two_questions() -> None:
    usage = Usage(calls=40, cached=10, prompt_tokens=8000, completion_tokens=2000, cost=0.5, estimated=True)
    found = quality_of(judged(25, verdict("first")), usage=usage, seconds=60.0).cost
    assert (found.cost_per_comparison, found.tokens_per_comparison, found.seconds_per_comparison) == (0.025, 500, 3)
    nothing = quality_of(judged(2, verdict("first")), usage=Usage(cached=4), seconds=1.0).cost
    assert (nothing.cost_per_comparison, nothing.tokens_per_comparison, nothing.seconds_per_comparison) == (None,) * 3


def test_intervals_are_by_prompt_and_subsets_apart() -> None:
    pairs = drawn(100, honest, subset="easy") + drawn(50, honest, seed=1, subset="hard")
    found = quality_of(pairs)
    assert {name: one.num_pairs for name, one in found.subsets.items()} == {"easy": 100, "hard": 50}
    assert found.num_prompts == 100
    out = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert out["subsets"]["easy"]["accuracy"]["value"] == found.subsets["easy"].accuracy.value
    assert out["bootstrap"] == {"unit": "prompt", "confidence": 0.95, "resamples": 300, "seed": 0}


def test_systems_are_ranked_by_verdicts_and_compared_two_by_two() -> None:
    pairs = [
        *judged(6, verdict("first"), systems=("b", "a")),
        *judged(2, verdict("first"), systems=("a", "b")),
        *judged(9, abstained(), systems=("a", "b")),
        *judged(9, verdict("first"), systems=("a", None)),
    ]
    ranking = rank_systems(pairs, resamples=20)
    assert [(system.name, system.wins, system.losses) for system in ranking.systems] == [("b", 6, 2), ("a", 2, 6)]
    assert 2 * ranking.systems[0].strength.value == pytest.approx(np.log(3), abs=1e-6)
    rates = win_rates(pairs, resamples=20)
    assert list(rates) == [("a", "b")]
    assert (rates["a", "b"].win_rate.value, rates["a", "b"].wins, rates["a", "b"].losses) == (0.25, 2, 6)
    assert rank_systems(judged(3, verdict("first"))) is None
    assert win_rates(judged(3, verdict("first"))) == {}
    with pytest.raises(DataError, match="b never lost"):
        rank_systems(pairs[:6])
    assert rank_systems(pairs[:6], prior=1, tie_model="half", resamples=20).systems[0].name == "b"


def test_a_win_is_a_verdict_and_probabilities_have_a_rate_of_their_own() -> None:
    """In the rows "a" comes second, and the names are put in order: 1 - 0.8 for "a" over "b".

    A judge that likes the first place and leans to one text by its probabilities has tied, not won.
    """
    pairs = judged(10, verdict("first", p_first=0.8), systems=("b", "a"))
    pairs += judged(10, verdict("first", "second", p_first=0.7), systems=("b", "a"))
    (rate,) = win_rates(pairs, resamples=10).values()
    assert (rate.wins, rate.ties, rate.losses) == (0, 10, 10)
    assert rate.win_rate.value == 0.25
    assert rate.soft_win_rate.value == pytest.approx(0.25)  # (10 * 0.2 + 10 * 0.3) / 20
    ranked = rank_systems(pairs, prior=1, resamples=5).systems
    assert [(system.wins, system.ties) for system in ranked] == [(10, 10), (0, 10)]
    (rate,) = win_rates([*pairs, *judged(1, verdict("first"), systems=("b", "a"))], resamples=10).values()
    assert rate.soft_win_rate is None


def test_win_rates_turn_lengths_with_the_systems() -> None:
    generator = np.random.default_rng(0)
    wordy = []
    for index in range(200):
        lengths = (int(generator.integers(100, 400)), 200)
        won = generator.random() < (0.8 if lengths[0] > 200 else 0.3)
        order, given, choice = ("a", "b"), lengths, "first" if won else "second"
        if index % 2:
            order, given, choice = ("b", "a"), lengths[::-1], BACK[choice]
        wordy.append(JudgedPair(f"p{index}", verdict(choice), None, given, order))
    (rate,) = win_rates(wordy, resamples=50).values()
    assert rate.length_coefficient.low > 0
    assert rate.win_rate.value > rate.length_controlled.value + 0.03


def test_a_share_of_all_has_an_exact_interval_and_no_point() -> None:
    """12 of 12 right: Clopper and Pearson's lower bound is 0.025^(1/12)."""
    quality = quality_of(judged(12, verdict("first")))
    for found in (quality.agreement.accuracy, quality.position.consistency):
        assert (found.value, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(0.025 ** (1 / 12))
    assert quality.abstentions.rate.high == pytest.approx(1 - 0.025 ** (1 / 12))
    assert quality_of(judged(12, verdict("second"))).agreement.accuracy.high == pytest.approx(1 - 0.025 ** (1 / 12))


def test_what_a_comparison_costs_is_of_those_answered_in_this_run() -> None:
    """12 calls: 2 of the probe and 2 that failed leave 8 answers, of 4 comparisons; the budget's were never sent."""
    usage = Usage(calls=12, probe_calls=2, cached=6, failures={"timeout": 2, "budget": 5}, prompt_tokens=40, cost=2.0)
    cost = quality_of(judged(10, verdict("first")), usage=usage, seconds=8.0).cost
    assert (cost.answered, cost.cost_per_comparison, cost.tokens_per_comparison) == (4, 0.5, 10)
    assert cost.seconds_per_comparison == 2
    nothing = quality_of(judged(10, verdict("first")), usage=Usage(cached=20, cost=0.0), seconds=8.0).cost
    assert (nothing.cost_per_comparison, nothing.seconds_per_comparison) == (None, None)


def test_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no judged comparisons"):
        measure_quality([])
