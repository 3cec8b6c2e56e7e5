"""Calibrating a model: what is refused, what the contract then says, and that scores follow it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.temperature import TemperatureScaling
from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.evaluation.calibrating import calibrate_model, unseen
from rewardlab.modeling import ensemble_heads
from rewardlab.modeling.checkpoint import Provenance, save_reward_model, write_contract
from rewardlab.modeling.contract import HeadRecord, load_contract
from rewardlab.modeling.ensemble_heads import Heads, use_heads
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.verification import verify_checkpoint
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup


@pytest.fixture(scope="module")
def model(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the trained model, to be calibrated."""
    folder = tmp_path_factory.mktemp("calibrated") / "rm"
    shutil.copytree(reward_model, folder)
    return folder


@pytest.fixture(scope="module")
def noisy(model: Path) -> list[PromptGroup]:
    """New pairs whose labels are drawn from the model's own scores at T = 0.01: some go against them."""
    scorer, random = Scorer.from_pretrained(model), np.random.default_rng(0)
    groups = [PromptGroup(f"Question number {i}?", [f"Answer {i * 7}.", f"No, {i * i}!"]) for i in range(120)]
    found = []
    for group, (first, second) in zip(groups, scorer.score_groups(groups), strict=True):
        wins = random.random() < 1 / (1 + np.exp(-(first - second) / 0.01))
        found.append(PromptGroup(group.prompt, group.completions, [Pair(0, 1) if wins else Pair(1, 0)]))
    return found


def test_the_contract_gets_the_scale_and_scores_follow_it(model: Path, noisy: list[PromptGroup]) -> None:
    """T is that of TemperatureScaling on the same margins; each scale is its formula on the raw scores."""
    scorer = Scorer.from_pretrained(model)
    raw = scorer.score_groups(noisy)
    result = calibrate_model(scorer, noisy, reference=noisy, reference_name="mine")
    margins = [row[g.pairs[0].chosen] - row[g.pairs[0].rejected] for g, row in zip(noisy, raw, strict=True)]
    fitted = TemperatureScaling().fit(margins).temperature_
    assert result.calibration.temperature.value == pytest.approx(fitted)
    write_contract(model, result.contract)
    contract = load_contract(model)
    assert contract is not None
    assert contract.reference is not None
    assert contract.temperature == pytest.approx(fitted)
    assert contract.calibration["num_pairs"] == 120
    assert (contract.calibration["trained_on"], contract.calibration["left_out"]) == (0, 0)
    every = np.array(raw).ravel()
    assert contract.reference.source == "mine"
    assert contract.reference.mean == pytest.approx(every.mean())
    assert json.loads((model / "vllm_pooler.json").read_text()) == {
        "logit_mean": pytest.approx(every.mean()),
        "logit_sigma": pytest.approx(fitted),
    }
    expected = {
        "centered": every - every.mean(),
        "z": (every - every.mean()) / every.std(),
        "calibrated": (every - every.mean()) / fitted,
    }
    for scale, values in expected.items():
        scaled = Scorer.from_pretrained(model, scale=scale).score_groups(noisy)  # type: ignore[arg-type]
        assert np.array(scaled).ravel() == pytest.approx(values, rel=1e-4, abs=1e-5), scale
    ranks = np.array(Scorer.from_pretrained(model, scale="percentile").score_groups(noisy)).ravel()
    assert ranks.min() == 0
    assert ranks.max() == 100
    assert (np.argsort(ranks, kind="stable") == np.argsort(every, kind="stable")).all()


def test_rows_that_were_trained_on_are_refused(model: Path, pairs: list[PromptGroup], noisy: list[PromptGroup]) -> None:
    """All of them: the training set. A few: left out and counted. Forced: kept, and said."""
    scorer = Scorer.from_pretrained(model)
    contract = scorer.contract
    assert contract is not None
    trained = pairs[: contract.data["train"]["num_groups"]]
    with pytest.raises(DataError, match="this is the training set"):
        calibrate_model(scorer, trained)
    with pytest.raises(DataError, match="have a completion that the model was trained on"):
        unseen(scorer, [*noisy[:20], *trained[:10]])
    kept, warnings = unseen(scorer, [*noisy, trained[0]])
    assert kept == noisy
    assert "left out" in warnings[0]
    kept, warnings = unseen(scorer, trained, force=True)
    assert kept == trained
    assert "all the same" in warnings[0]


def test_the_shift_since_the_version_before(model: Path, reward_model: Path, noisy: list[PromptGroup]) -> None:
    """The same weights: no shift, also where the version before must score the set itself."""
    scorer, before = Scorer.from_pretrained(model), Scorer.from_pretrained(reward_model)
    result = calibrate_model(scorer, noisy, reference=noisy, previous=before)
    assert result.shift is not None
    assert result.shift.to_dict()["comparable"] is True
    assert result.shift.to_dict()["mean_shift"] == pytest.approx(0, abs=1e-4)
    with pytest.raises(ConfigError, match="statistics of another set"):
        calibrate_model(scorer, noisy, previous=before)


def test_an_imported_model_without_quantiles_gets_a_reference(
    model: Path, noisy: list[PromptGroup], tmp_path: Path
) -> None:
    """OpenRLHF's mean and std come without quantiles and without a count."""
    import dataclasses

    folder = tmp_path / "imported"
    shutil.copytree(model, folder)
    contract = load_contract(folder)
    assert contract is not None
    bare = ReferenceStatistics("openrlhf config", 0, 0.5, 2.0, {})
    dataclasses.replace(contract, reference=bare, temperature=None, calibration={}, data={}).save(folder)
    with pytest.raises(ConfigError, match="rewardlab calibrate"):
        Scorer.from_pretrained(folder, scale="percentile")
    result = calibrate_model(Scorer.from_pretrained(folder), noisy)
    assert result.reference.num_scores == 240
    assert result.reference.quantiles
    assert "does not say which rows" in result.warnings[0]


def test_only_raw_scores_are_calibrated(model: Path, noisy: list[PromptGroup]) -> None:
    with pytest.raises(ConfigError, match="raw"):
        calibrate_model(Scorer.from_pretrained(model, scale="z"), noisy)


def test_a_row_that_does_not_fit_is_left_out_and_told(model: Path, noisy: list[PromptGroup]) -> None:
    """As `evaluate` does; it stopped the command."""
    long = PromptGroup("Long?", ["word " * 400, "short"], [Pair(0, 1)], source="rows.jsonl:9")
    scorer = Scorer.from_pretrained(model)
    result = calibrate_model(scorer, [*noisy, long], reference=[*noisy, long])
    assert (result.left_out, result.trained_on) == (1, 0)
    assert result.calibration.num_pairs == len(noisy)
    told = [warning for warning in result.warnings if "rows.jsonl:9" in warning]
    assert ["out of the fit" in told[0], "out of the reference set" in told[1]] == [True, True]


# -- several heads ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_heads(base_model: Path, pairs: list[PromptGroup], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three heads from a short run without held-out rows: no head has a temperature yet."""
    folder = tmp_path_factory.mktemp("heads")
    prepared = prepare_for_training(base_model, seed=0, ensemble_heads=3)
    arguments = RewardArguments(
        str(folder / "run"), ensemble_heads=3, max_length=128, max_steps=6, learning_rate=3e-3, disable_tqdm=True,
        use_cpu=True, save_strategy="no", seed=0,
    )  # fmt: skip
    trainer = RewardTrainer(prepared.model, arguments, pairs[:32], processing_class=prepared.tokenizer)
    trainer.train()
    trainer.save_reward_model(folder / "rm")
    return folder / "rm"


def labelled_by(scores: list[list[float]], groups: list[PromptGroup], temperature: float) -> list[PromptGroup]:
    """The groups with winners drawn from some scores at a temperature."""
    random = np.random.default_rng(0)
    found = []
    for group, (first, second) in zip(groups, scores, strict=True):
        wins = random.random() < 1 / (1 + np.exp(-(first - second) / temperature))
        found.append(PromptGroup(group.prompt, group.completions, [Pair(0, 1) if wins else Pair(1, 0)]))
    return found


def test_every_head_gets_its_own_scale(trained_heads: Path, noisy: list[PromptGroup], tmp_path: Path) -> None:
    """Against the ensemble's raw scores of its members, taken by another road; and the scale they then have."""
    folder = Path(shutil.copytree(trained_heads, tmp_path / "rm"))
    raw, by_group = EnsembleScorer.of_heads(folder, on="raw").score_groups_members(noisy)
    members = np.array(by_group).transpose(2, 0, 1)  # heads, groups, completions
    rows = labelled_by(raw, noisy, float(np.abs(np.diff(raw)).mean()))
    scorer, stored = Scorer.from_pretrained(folder), load_contract(folder)
    assert stored is not None
    before, probes = scorer.score_groups(noisy[:3]), [record.probe_scores for record in stored.heads]
    result = calibrate_model(scorer, rows, reference=rows, reference_name="mine", progress=True)
    assert scorer.score_groups(noisy[:3]) == before, "the model has its own head again"
    assert scorer.loaded.model.config.num_labels == 1
    write_contract(folder, result.contract)

    contract = load_contract(folder)
    assert contract is not None
    for record, own, told in zip(contract.heads, members, result.to_dict()["heads"], strict=True):
        margins = [row[g.pairs[0].chosen] - row[g.pairs[0].rejected] for g, row in zip(rows, own, strict=True)]
        assert record.temperature == pytest.approx(TemperatureScaling().fit(margins).temperature_, rel=1e-4)
        assert told["temperature"]["value"] == record.temperature
        assert (record.calibration["num_pairs"], record.calibration["forced"]) == (120, False)
        assert record.reference is not None
        assert record.reference.source == "mine"
        assert (record.reference.mean, record.reference.std) == pytest.approx((own.mean(), own.std()), abs=1e-5)
        assert told["reference"]["mean"] == record.reference.mean
    assert [record.probe_scores for record in contract.heads] == probes
    assert len({record.temperature for record in contract.heads} | {contract.temperature}) == 4
    assert contract.reference is not None
    assert json.loads((folder / "vllm_pooler.json").read_text()) == {
        "logit_mean": contract.reference.mean,
        "logit_sigma": contract.temperature,
    }
    plain = np.array(Scorer.from_pretrained(folder).score_groups(noisy))
    assert contract.reference.mean == pytest.approx(plain.mean(), abs=1e-5)
    assert verify_checkpoint(folder).ok

    ensemble = EnsembleScorer.of_heads(folder)
    assert ensemble.on == "calibrated"
    scaled = np.array(ensemble.score_groups_members(noisy)[1]).transpose(2, 0, 1)
    for record, own, on_scale in zip(contract.heads, members, scaled, strict=True):
        assert record.temperature is not None
        np.testing.assert_allclose(on_scale, (own - own.mean()) / record.temperature, rtol=1e-4, atol=1e-4)


@pytest.fixture
def opposed(reward_model: Path, tmp_path: Path) -> Path:
    """A trained model as the mean of two heads: one of three times its scores, and one that turns them round."""
    loaded = load_reward_model(reward_model)
    own = Heads.of(loaded.model)
    heads = Heads(torch.cat([3 * own.weight, -own.weight]))
    use_heads(loaded.model, heads.mean)
    contract = loaded.contract
    assert contract is not None
    template = prepare_for_training(reward_model, seed=0).template
    save_reward_model(
        tmp_path / "rm",
        loaded.model,
        loaded.tokenizer,
        template,
        max_length=contract.max_length,
        provenance=Provenance({"name": "bradley_terry"}),
        heads=heads,
        head_records=[HeadRecord(None, 2.0, {"unit": "pair"}, []) for _ in range(2)],
    )
    return tmp_path / "rm"


def test_a_head_whose_rows_determine_no_temperature(opposed: Path, noisy: list[PromptGroup]) -> None:
    """Three times the scores: three times T. Turned round they are worse than chance: none, and it is told."""
    result = calibrate_model(Scorer.from_pretrained(opposed), noisy)
    first, second = result.contract.heads
    assert first.temperature == pytest.approx(3 * result.calibration.temperature.value, rel=1e-3)
    assert (second.temperature, second.calibration, result.heads[1]) == (None, {}, None)
    assert result.to_dict()["heads"][1]["temperature"] is None
    assert [w for w in result.warnings if w.startswith("head 1 has no temperature any more: ")]
    assert second.reference is not None
    assert second.reference.mean == pytest.approx(-result.reference.mean, abs=1e-4)
    assert second.reference.sha256 == result.reference.sha256


def test_heads_that_are_not_the_contracts_are_refused(opposed: Path, noisy: list[PromptGroup]) -> None:
    (opposed / ensemble_heads.FILE_NAME).unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        calibrate_model(Scorer.from_pretrained(opposed), noisy)
