"""Seeds' records put together: the differences, the headline and the table."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rewardlab.metrics.bootstrap import Interval
from rewardlab.studies.overopt import OveroptSize, settings_of
from rewardlab.studies.overopt_curves import SeedCurve
from rewardlab.studies.overopt_proxies import ProxySize
from rewardlab.studies.overopt_result import OveroptResult

SMALL, MORE, LARGE = ProxySize(1000), ProxySize(4000), ProxySize(1000, 64, 2)
KL = (0.0, 0.25, 1.0, 4.0, 9.0)
FALLS, HOLDS = (0.0, 0.5, 1.0, 0.5, -0.5), (0.0, 0.5, 1.0, 1.2, 1.0)


def curve(gold, shift):
    """Gold as given, moved by ``shift`` after the start; the drop is exactly that of the points."""
    moved = np.array(gold) + shift * (np.array(gold) != 0)
    points = tuple(Interval(float(v), float(v) - 0.2, float(v) + 0.2) for v in moved)
    proxy = tuple(Interval(float(v), None, None) for v in np.sqrt(KL))
    return SeedCurve((1, 2, 4, 8, 16), KL, points, proxy, float(moved.max() - moved[-1]))


def write_seeds(folder, number=3, *, grpo=True, settings=None):
    """A record for each seed; the ensembles fall less than the single proxy."""
    made = [
        ("best_of_n", SMALL, "single", FALLS),
        ("best_of_n", SMALL, "mean", HOLDS),
        ("best_of_n", SMALL, "min", HOLDS),
    ]
    made += [("best_of_n", SMALL, "mean-std", HOLDS)]
    made += [("best_of_n", MORE, "single", HOLDS), ("best_of_n", LARGE, "single", FALLS)]
    if grpo:
        made += [("grpo", SMALL, "single", FALLS), ("grpo", SMALL, "mean", HOLDS)]
    files = []
    for seed in range(number):
        curves = [
            {
                "optimiser": optimiser,
                "proxy_size": {
                    "num_pairs": size.num_pairs,
                    "hidden_size": size.hidden_size,
                    "num_layers": size.num_layers,
                },
                "combined": how,
                **curve(gold, 0.05 * (seed - 1)).to_dict(),
            }
            for optimiser, size, how, gold in made
        ]
        proxies = [{"proxy_size": curves[0]["proxy_size"], "correlation": 0.4, "of_the_mean": 0.5}]
        policy = {"gold": 1.6, "gold_std_within_prompts": 2.1, "best_of_pool": 5.0, "distinct_in_pool": 700.0}
        record = {"curves": curves, "proxies": proxies, "policy": policy, "seed": seed, "seconds": 600}
        files.append(folder / f"seed-{seed}.json")
        files[-1].write_text(json.dumps(record | {"settings": settings or settings_of(OveroptSize(), None)}))
    return files


def test_the_headline_says_where_to_stop(tmp_path):
    result = OveroptResult.load(write_seeds(tmp_path))
    assert result.seeds == (0, 1, 2)
    assert result.headline[0] == (
        "Best-of-n: stop at about KL 1.0 nats (seeds: 1.0 to 1.0); gold is +1.00 there and −0.50 at 9.0 nats"
    )
    assert result.budget == 1.0


def test_without_a_peak_nothing_is_advised(tmp_path):
    files = write_seeds(tmp_path, 1, grpo=False)
    record = json.loads(files[0].read_text())
    for one in record["curves"]:
        one["gold"] = [{"value": v, "low": None, "high": None} for v in (0, 1, 2, 3, 4)]
    files[0].write_text(json.dumps(record))
    result = OveroptResult.load(files)
    assert "no budget can be read" in result.headline[0]
    assert result.budget is None
    record["curves"][0]["gold"] = [{"value": -v, "low": None, "high": None} for v in (0, 1, 2, 3, 4)]
    files[0].write_text(json.dumps(record))
    assert "do not optimise" in OveroptResult.load(files).headline[0]


def test_ensembles_are_compared_with_the_single_proxy_seed_by_seed(tmp_path):
    """The end: 1.0 - (-0.5) = 1.5 in every seed, so without an error; the drop: 0.2 - 1.5."""
    result = OveroptResult.load(write_seeds(tmp_path))
    end, drop = next(found for made, found in result.differences.items() if made.combined == "min")
    assert (end.value, end.low, end.high) == (pytest.approx(1.5),) * 3
    assert drop.value == pytest.approx(0.2 - 1.5)


def test_the_table_has_a_row_for_each_curve_and_the_json_is_json(tmp_path):
    result = OveroptResult.load(write_seeds(tmp_path))
    of_curves, of_ensembles = result.markdown().split("Gold above")
    table = [line for line in of_curves.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 8
    assert of_ensembles.count("\n|") == 2 + 4
    assert len({line.count("|") for line in table}) == 1
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [one["combined"] for one in record["curves"]][:3] == ["single", "mean", "min"]
    assert record["curves"][0]["end_against_single"] is None


def test_ensembles_are_compared_at_equal_kl(tmp_path):
    """HOLDS less FALLS at d = sqrt(0.5), 1, sqrt(2), sqrt(3), sqrt(5): the points of d are 0, 0.5, 1, 2, 3."""
    result = OveroptResult.load(write_seeds(tmp_path))
    d = np.sqrt([0.5, 1.0, 2.0, 3.0, 5.0])
    expected = np.interp(d, np.sqrt(KL), np.array(HOLDS) - np.array(FALLS))
    for found in result.above_single.values():
        assert [one.value for one in found] == pytest.approx(expected.tolist())
    heading, *rows = result.equal_kl_rows()
    assert heading == ("optimiser", "combined", "KL 0.5", "KL 1", "KL 2", "KL 3", "KL 5")
    assert [row[:2] for row in rows] == [("best-of-n", how) for how in ("mean", "min", "mean-std")] + [("GRPO", "mean")]
    assert "at equal KL" in result.markdown()


def test_a_kl_that_a_seed_did_not_reach_has_no_difference(tmp_path):
    files = write_seeds(tmp_path)
    record = json.loads(files[1].read_text())
    for one in record["curves"]:
        one["kl"] = [kl / 4 for kl in one["kl"]]  # to 2.25 nats
    files[1].write_text(json.dumps(record))
    assert all(found[3:] == (None, None) for found in OveroptResult.load(files).above_single.values())
