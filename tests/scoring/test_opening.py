"""Which scorer a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.scoring.implicit import ImplicitRewardScorer
from rewardlab.scoring.opening import open_scorer, policy_and_reference


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/rm", None),
        (Path("runs/rm"), None),
        ("owner/policy:owner/reference", ("owner/policy", "owner/reference")),
        ("policy:", ("policy", None)),
        ("C:\\models\\rm", None),
        ("hf://owner/rm", None),
        ("a:b:c", None),
    ],
)
def test_a_colon_names_two_models(path: str | Path, expected: tuple[str, str | None] | None) -> None:
    assert policy_and_reference(path) == expected


def test_a_folder_that_exists_is_one_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run:3").mkdir()
    assert policy_and_reference("run:3") is None
    assert policy_and_reference("run:4") == ("run", "4")


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
