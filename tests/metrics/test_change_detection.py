"""rewardlab.metrics.change_detection: the sums written out, martingale and Doob by simulation, and drift simulated.

The simulations are those of benchmarks/drift.py, scaled down.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rewardlab.metrics.calibration_change import calibration_moments
from rewardlab.metrics.change_detection import Bets, detect, log_evidence, log_limit
from rewardlab.metrics.recursive_residuals import Residuals, window_moments

ROOT = Path(__file__).resolve().parents[2]


def _drift() -> ModuleType:
    spec = importlib.util.spec_from_file_location("drift", ROOT / "benchmarks" / "drift.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses ask for it
    spec.loader.exec_module(module)
    return module


drift = _drift()


def residuals(generator, *shape: int) -> Residuals:
    return Residuals(generator.normal(size=shape), generator.uniform(0, 3, shape), generator.uniform(0, 0.5, shape))


def test_evidence_is_the_double_loop() -> None:
    """R_n = mean over components of sum over starts of mean over sizes of the product of normal likelihood ratios."""
    generator = np.random.default_rng(0)
    components = [Bets(residuals(generator, 12), (0.5, 1.5)), Bets(residuals(generator, 12), (-1.0, 0.2, 1.0))]
    expected = []
    for last in range(12):
        total = 0.0
        for bets in components:
            for start in range(last + 1):
                for size in bets.sizes:
                    ratio = 1.0
                    for window in range(start, last + 1):
                        shift = size * bets.residuals.levels[start] * bets.residuals.rates[window]
                        value = bets.residuals.values[window]
                        ratio *= math.exp(-((value - shift) ** 2) / 2) / math.exp(-(value**2) / 2)
                    total += ratio / len(bets.sizes) / len(components)
        expected.append(math.log(total))
    assert log_evidence(components) == pytest.approx(expected)
    assert detect(components, 99.0).log_evidence == pytest.approx(expected)


def test_many_at_once_are_as_one_by_one() -> None:
    generator = np.random.default_rng(1)
    many = residuals(generator, 3, 10)
    together = log_evidence([Bets(many, (-1.0, 2.0))])
    for number in range(3):
        single = Residuals(many.values[number], many.levels[number], many.rates[number])
        assert log_evidence([Bets(single, (-1.0, 2.0))]) == pytest.approx(together[number])


def test_mean_evidence_is_the_number_of_windows() -> None:
    """R_n - n is a martingale. 40,000 runs with expected residuals of at most 0.6: R_10 has a deviation near 10."""
    generator = np.random.default_rng(2)
    shape = (40_000, 10)
    quiet = Residuals(generator.normal(size=shape), np.ones(shape), np.ones(shape))
    means = np.exp(log_evidence([Bets(quiet, (0.3, 0.6))])).mean(axis=0)
    assert means == pytest.approx(np.arange(1, 11), rel=0.05)


def test_the_rate_is_kept() -> None:
    """Doob: at most 20 % of 3,000 quiet runs of 50 windows reach 50 / 0.2; if the bound were lost, nearly all do."""
    generator = np.random.default_rng(3)
    shape = (3000, 50)
    quiet = Residuals(generator.normal(size=shape), np.ones(shape), np.ones(shape))
    evidence = log_evidence([Bets(quiet, (0.5, 1.0, 2.0))])
    share = (evidence >= log_limit(0.2, 50)).any(axis=1).mean()
    assert 0.02 < share <= 0.2


def test_a_change_is_found_where_it_began() -> None:
    values = np.concatenate([np.zeros(10), np.full(8, 2.0)])
    found = detect([Bets(Residuals(values, np.ones(18), np.ones(18)), (2.0,))], log_limit(0.05, 200))
    assert found.onset == 10
    # From window 10 on each window adds 2 * 2 - 2 = 2, and the limit is log 4000 = 8.3: the fifth at the latest.
    assert found.alarm == 14
    other_way = detect([Bets(Residuals(-values, np.ones(18), np.ones(18)), (2.0,))], log_limit(0.05, 200))
    assert other_way.alarm is None


def test_nothing_known_nothing_seen() -> None:
    nothing = Residuals(np.zeros(1), np.zeros(1), np.zeros(1))
    found = detect([Bets(nothing, (1.0,))], 5.0)
    assert (found.alarm, found.onset) == (None, None)
    assert found.log_evidence == pytest.approx([0.0])


def test_huge_residuals_do_not_overflow() -> None:
    huge = Residuals(np.full(5, 1e6), np.ones(5), np.ones(5))
    assert np.isfinite(log_evidence([Bets(huge, (10.0,))])).all()


def test_bad_bets_are_refused() -> None:
    generator = np.random.default_rng(4)
    with pytest.raises(ValueError, match="nothing to bet on"):
        log_evidence([])
    with pytest.raises(ValueError, match="nothing to bet on"):
        log_evidence([Bets(residuals(generator, 3), ())])
    with pytest.raises(ValueError, match="same windows"):
        log_evidence([Bets(residuals(generator, 3), (1.0,)), Bets(residuals(generator, 4), (1.0,))])
    for bad in ((0.0, 200, 1), (0.05, 0, 1), (0.05, 200, 0)):
        with pytest.raises(ValueError, match="rate"):
            log_limit(*bad)


@pytest.mark.parametrize("per_prompt", [1, 4])
def test_the_benchmark_sums_windows_as_the_product_does(per_prompt) -> None:
    generator = np.random.default_rng(5)
    margins, right = drift.draw(generator, drift.World(0.7, per_prompt), (3,), 40)
    accuracy, calibration = drift.moments(margins, right)
    prompts = np.repeat([f"prompt {number}" for number in range(40 // per_prompt)], per_prompt).tolist()
    for window in range(3):
        outcome = right[window].ravel()
        assert accuracy[window] == pytest.approx(window_moments(outcome.astype(float), prompts))
        signed = np.where(outcome, 1, -1) * margins[window].ravel()
        assert calibration[window] == pytest.approx(calibration_moments(signed, 1.0, prompts, [40])[0], abs=1e-9)


def test_quiet_runs_stay_quiet() -> None:
    """200 runs of 200 windows, half with 4 comparisons a prompt: at most 5 % alarm (some 1 % do)."""
    generator = np.random.default_rng(6)
    alarms = 0
    for world in (drift.World(0.7, 4), drift.World(0.8)):
        for _ in range(2):
            baseline = drift.baseline_of(drift.sequences(generator, world, 50, 1, 500), 500)
            evidence = drift.sequences(generator, world, 50, 200).evidence(baseline)
            alarms += int((np.maximum(*evidence) >= drift.LIMIT).any(axis=1).sum())
    assert alarms <= 10


def test_a_drop_of_five_points_is_found_within_ten_windows() -> None:
    """The median of 200 runs: at 75 %, after 30 quiet windows and with a baseline of 2,000."""
    words, share = _until_found(drift.World(0.75), drop=np.full(40, 0.05))["accuracy"]
    assert int(words.split(" ")[0]) <= 10
    assert share > 0.9


def test_miscalibration_alone_is_found_by_calibration_alone() -> None:
    """Margins twice as large, accuracy as before."""
    found = _until_found(drift.World(0.7), drop=np.zeros(30), scale=2.0)
    assert int(found["ece"][0].split(" ")[0]) <= 5
    assert found["ece"][1] == 1
    assert found["accuracy"][1] < 0.05


def _until_found(world, **change) -> dict[str, tuple[str, float]]:
    generator = np.random.default_rng(7)
    accuracy, ece, *shares = drift.found(generator, world, 200, baseline=2000, quiet=30, **change)
    return {"accuracy": (accuracy, shares[0]), "ece": (ece, shares[1])}
