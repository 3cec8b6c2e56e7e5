"""The study: what best-of-n makes of proxies whose error is known, what is resumed or refused; (slow) a tiny run."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from tests.studies.test_overopt_result import write_seeds

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.studies import overopt
from rewardlab.studies.overopt import (
    OveroptSize,
    best_of_n,
    draw_prompts,
    gold_reward,
    pairs_of_samples,
    run_overopt,
    settings_of,
)
from rewardlab.studies.overopt_grpo import GrpoSize
from rewardlab.studies.overopt_page import write_pages
from rewardlab.studies.overopt_proxies import ProxySize, ProxyTraining
from rewardlab.studies.policy import PolicySize
from rewardlab.studies.utility import read_request
from rewardlab.types import PromptGroup

RNG = np.random.default_rng(0)
GOLD = RNG.normal(size=(64, 512))


def curve_of(error, how="single"):
    """Best-of-n by gold plus an error, shape (prompts, samples) or (prompts, samples, members)."""
    scores = (GOLD + error)[..., None] if error.ndim == 2 else GOLD[..., None] + error
    return best_of_n(scores, GOLD, how)


def test_a_proxy_that_is_the_gold_never_falls():
    """Best of n of a standard normal: 1.0298 of 8, 2.0697 of 64... each above the one before; proxy and gold agree."""
    curve = curve_of(np.zeros_like(GOLD))
    gold = [point.value for point in curve.gold]
    assert gold[0] == pytest.approx(0, abs=1e-9)
    assert all(b > a for a, b in pairwise(gold))
    assert gold[3] == pytest.approx(1.4236, abs=0.06), "the expected maximum of 8 standard normals"
    assert gold == pytest.approx([point.value for point in curve.proxy])
    assert curve.drop <= 0


def test_a_proxy_of_pure_noise_stays_at_zero():
    curve = best_of_n(RNG.normal(size=(64, 512, 1)), GOLD, "single")
    assert all(abs(point.value) < 4 * np.sqrt(1 / 64) for point in curve.gold)
    assert curve.proxy[-1].value > 2.5


def test_a_normal_error_only_slows_gold_down():
    """Proxy = gold + N(0, 1), so E[g | g + e] = (g + e) / 2: at every n gold is E[max of n] / sqrt(2).

    The proxy is scaled to the gold's deviation: E[max of n]. Both kernels have a variance of at most 1, so a mean over
    all subsets of n of the 512 samples has one of at most n / 512 (Hoeffding), and 1 / 512 is the centring's; of 64
    prompts, four standard errors.
    """
    curve = curve_of(RNG.normal(size=GOLD.shape))
    for n, gold, proxy in zip(curve.step, curve.gold, curve.proxy, strict=True):
        highest = quad(lambda x, n=n: n * x * norm.pdf(x) * norm.cdf(x) ** (n - 1), -10, 10, limit=200)[0]
        error = 4 * (np.sqrt(n / 512) + np.sqrt(1 / 512)) / 8
        assert gold.value == pytest.approx(highest / np.sqrt(2), abs=error), n
        assert proxy.value == pytest.approx(highest, abs=error), n


def test_a_heavy_tailed_error_makes_gold_fall_back():
    """Student's t with 1 degree of freedom: in the tail it is error alone that is picked.

    Kwa et al. 2024 (arXiv:2407.14503): under a heavy-tailed error gold returns to the policy's mean as KL grows.
    """
    curve = curve_of(RNG.standard_t(1, size=GOLD.shape))
    gold = [point.value for point in curve.gold]
    assert 0 < int(np.argmax(gold)) < len(gold) - 1
    assert curve.drop > 0.3
    assert abs(gold[-1]) < 0.5
    assert curve.proxy[-1].value > curve.proxy[0].value


def test_an_ensemble_of_independent_heavy_tailed_errors_falls_less():
    """The lowest of four is large only where all four are: the tail's exponent is four times as large."""
    errors = RNG.standard_t(1, size=(*GOLD.shape, 4))
    single, lowest = curve_of(errors), curve_of(errors, "min")
    assert lowest.gold[-1].value > single.gold[-1].value + 0.5


def test_prompts_are_different_and_of_every_kind():
    from random import Random

    prompts = draw_prompts(Random(0), 40)
    others = draw_prompts(Random(0), 40, without=prompts)
    assert len({*prompts, *others}) == 80
    assert sorted({read_request(prompt).kind for prompt in prompts}) == ["arithmetic", "explain", "format", "reply"]


def test_a_prompt_is_asked_again_until_its_samples_differ():
    def draw(prompts, n, seed):
        return [[p, p if p == "b" and seed == 0 else p + "!"] for p in prompts]

    pairs = pairs_of_samples(draw, ["a", "b", "c"], 0)
    assert [(pair.prompt, pair.completions) for pair in pairs] == [(p, (p, p + "!")) for p in "abc"]


def test_the_gold_is_the_worlds_truth():
    assert gold_reward(None)([PromptGroup("What is 2 plus 3?", ("The result is 5.",))]) == [[pytest.approx(3.4)]]


@pytest.fixture
def no_work(monkeypatch):
    """Fails where a seed is run."""

    def refuse(*arguments):
        raise AssertionError("a seed was run again")

    monkeypatch.setattr(overopt, "run_seed", refuse)


def test_seeds_with_figures_are_not_run_again(tmp_path, no_work):
    write_seeds(tmp_path, 2)
    told = []
    result = run_overopt(tmp_path, seeds=(0, 1), report=told.append)
    assert result.seeds == (0, 1)
    assert len(told) == 2
    with pytest.raises(AssertionError, match="run again"):
        run_overopt(tmp_path, seeds=(0, 1, 2))


def test_a_run_writes_its_record_with_its_settings(tmp_path, monkeypatch):
    record = json.loads(write_seeds(tmp_path, 1)[0].read_text())
    made = {name: record[name] for name in ("curves", "proxies", "policy")}
    monkeypatch.setattr(overopt, "run_seed", lambda scratch, seed, size, gold, report: dict(made))
    run_overopt(tmp_path / "new", seeds=(5,))
    written = json.loads((tmp_path / "new" / "seed-5.json").read_text())
    assert written["seed"] == 5
    assert written["settings"] == settings_of(OveroptSize(), None)


def test_figures_of_other_settings_are_refused(tmp_path, no_work):
    write_seeds(tmp_path, 1)
    with pytest.raises(ConfigError, match="other settings"):
        run_overopt(tmp_path, size=OveroptSize.quick())
    with pytest.raises(ConfigError, match="other settings"):
        run_overopt(tmp_path, gold="a/reward-model")


def test_what_cannot_be_run_is_refused(tmp_path, no_work):
    for seeds, workers in (((0, 0), 1), ((), 1), ((0,), 0)):
        with pytest.raises(ConfigError, match="workers"):
            run_overopt(tmp_path, seeds=seeds, workers=workers)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="not a folder"):
        run_overopt(tmp_path / "file")


def test_that_trl_is_missing_is_told_before_anything_is_run(tmp_path, monkeypatch, no_work):
    monkeypatch.setattr(overopt, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="TRL"):
        run_overopt(tmp_path)
    with pytest.raises(AssertionError, match="run again"):
        run_overopt(tmp_path, size=OveroptSize(grpo=GrpoSize(steps=0)))


@pytest.mark.slow
def test_a_tiny_study_from_policy_to_page(tmp_path):
    size = OveroptSize(
        policy=PolicySize(num_pairs=640, hidden_size=32, num_layers=1, num_heads=2),
        proxies=(ProxySize(60), ProxySize(30)),
        training=ProxyTraining(num_steps=5, batch_size=8, vocabulary=512),
        members=2,
        num_prompts=4,
        pool=8,
        max_new_tokens=24,
        grpo=GrpoSize(steps=2, every=1, prompts_per_step=2, num_generations=4, samples_per_prompt=2),
    )
    result = run_overopt(tmp_path, seeds=(0,), size=size)
    assert len(result.curves) == 4 + 1 + 4
    for curve in result.curves.values():
        assert (curve.kl[0], len(curve.gold)) == (pytest.approx(0, abs=1e-4), len(curve.kl))
    assert write_pages(result, tmp_path).is_file()
