"""Which scorer a name means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.implicit import ImplicitRewardScorer
from rewardlab.scoring.opening import open_scorer


def test_a_policy_must_be_named() -> None:
    with pytest.raises(ConfigError, match="no policy before the colon"):
        open_scorer(":reference")


def test_each_kind_opens_as_its_own(reward_model: Path, base_model: Path) -> None:
    scorer = open_scorer(reward_model, dtype="float32", beta=None)
    assert not isinstance(scorer, ImplicitRewardScorer)
    implicit = open_scorer(f"{base_model}:{base_model}", beta=0.5, engine="padded", verify=True, aggregation=None)
    assert isinstance(implicit, ImplicitRewardScorer)
    assert (implicit.beta, implicit.reference is None) == (0.5, False)
    free = open_scorer(f"{base_model}:", engine="padded")
    assert isinstance(free, ImplicitRewardScorer)
    assert free.reference is None
    assert implicit.score(["Hi"], ["x"]) == [0.0]
    assert free.score(["Hi"], ["x"])[0] < 0


def test_options_of_the_other_kind_are_refused(reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="beta means nothing to a reward model"):
        open_scorer(reward_model, beta=0.1)
    with pytest.raises(ConfigError, match="aggregation means nothing to a policy"):
        open_scorer("policy:reference", aggregation="mean")


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match="nowhere/policy"):
        open_scorer("./nowhere/policy:./nowhere/reference")


def test_an_ensemble_opens_as_one(reward_model: Path, base_model: Path) -> None:
    """Members of any kind; a policy has no reference set, so that beside it only raw scores can be combined."""
    mixed = open_scorer(f"{reward_model},{base_model}:{base_model}", on="raw", engine="padded", scale=None)
    assert isinstance(mixed, EnsembleScorer)
    assert mixed.to_dict() == {
        "members": [str(reward_model), f"{base_model}:{base_model}"],
        "how": "mean",
        "k": None,
        "weights": None,
        "on": "raw",
    }
    alone = open_scorer(reward_model, engine="padded").score(["Hi"], ["x"])[0]
    assert mixed.score(["Hi"], ["x"])[0] == pytest.approx(alone / 2, abs=1e-6)  # the other's is 0


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("a,b", {"ensemble": "best"}, "no ensemble is combined by 'best'"),
        ("a,b", {"k": 2.0}, "k means nothing to 'mean'"),
        ("a,b", {"weights": [1, 2]}, "weights mean nothing to 'mean'"),
        ("a,b", {"ensemble": "weighted", "weights": [1, 2, 3]}, "3 weights for 2 members"),
        ("a,b", {"scale": "z"}, "scale means nothing to an ensemble"),
        ("rm", {"weights": [1]}, "weights means nothing to one model: rm"),
        ("rm", {"on": "z"}, "on means nothing to one model: rm"),
        ("policy:reference", {"ensemble": "min"}, "policy:reference has no heads"),
        ("rm", {"ensemble": "min", "beta": 0.1}, "beta means nothing to a reward model's heads"),
        ("./rm,./policy:", {"beta": 0.1}, "member 1 of 2, ./rm: beta means nothing to a reward model"),
    ],
)
def test_options_of_ensembles_are_checked_before_loading(path: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_scorer(path, **options)


def test_a_member_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"member 1 of 2, \./nowhere/a: no such folder"):
        open_scorer("./nowhere/a,./nowhere/b")
