"""rewardlab.monitoring.figures: the figures by hand and by `evaluate_scores`, and the rows that are refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import numpy as np
import pytest
from tests.monitoring.stand_in import StandIn, group

from rewardlab.errors import ConfigError, DataError
from rewardlab.metrics.pairs import evaluate_scores
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.modeling.loading import fingerprint_of
from rewardlab.monitoring.figures import LEVELS, contract_sha256, settings_of, snapshot_of, weights_of
from rewardlab.monitoring.keys import pair_key
from rewardlab.types import Pair, PromptGroup, ReadOut


def groups_of(count=40, seed=0):
    draws = np.random.default_rng(seed).normal(0.8, 1.5, (count, 2))
    return [group(i, float(a), float(a - b), subset="xy"[i % 2]) for i, (a, b) in enumerate(draws)]


def taken(groups, kind="fresh", scorer=None, **more):
    return snapshot_of(kind, scorer or StandIn(), groups, data=["rows.jsonl"], **more)


def test_by_hand():
    """Margins 2, -1, 0: one of three is right. Scores 2 0 0 1 1 1: mean 5/6, median 1."""
    found = taken([group(0, 2.0, 0.0), group(1, 0.0, 1.0), group(2, 1.0, 1.0)])
    metrics = found.metrics
    assert (metrics["num_pairs"], metrics["num_prompts"]) == (3, 3)
    assert metrics["accuracy"]["value"] == pytest.approx(1 / 3)
    assert metrics["margin"]["value"] == pytest.approx(1 / 3)
    assert metrics["log_loss"]["value"] == pytest.approx(np.log1p(np.exp([-2.0, 1.0, 0.0])).mean())
    assert (metrics["scores"]["num"], metrics["scores"]["mean"]) == (6, pytest.approx(5 / 6))
    assert metrics["scores"]["quantiles"]["0.5"] == 1.0
    assert metrics["subsets"] == {}
    assert (metrics["disagreement"], metrics["gap"], metrics["temperature"]) == (None, None, 1.0)
    assert [(pair.chosen, pair.rejected) for pair in found.pairs] == [(2.0, 0.0), (0.0, 1.0), (1.0, 1.0)]


def test_figures_are_evaluation_s_and_everything_is_json():
    groups = groups_of()
    found = taken(groups, scorer=StandIn(temperature=2.0))
    result = evaluate_scores(groups, StandIn().score_groups(groups), temperature=2.0)
    assert found.metrics["accuracy"] == result.accuracy.to_dict()
    assert found.metrics["ece"] == result.calibrated["ece"].to_dict() != result.ece.to_dict()
    assert found.metrics["temperature"] == 2.0
    assert json.loads(json.dumps(found.metrics, allow_nan=False)) == found.metrics
    assert list(found.metrics["scores"]["quantiles"]) == [f"{level:g}" for level in LEVELS]
    assert sum(one["num_pairs"] for one in found.metrics["subsets"].values()) == 40
    x = [index for index, one in enumerate(groups) if one.subset == "x"]
    assert found.metrics["subsets"]["x"]["log_loss"] == pytest.approx(
        evaluate_scores([groups[i] for i in x], StandIn().score_groups([groups[i] for i in x]), temperature=2.0)
        .calibrated["log_loss"]
        .value
    )


def test_a_temperature_of_outcomes_is_none_of_preferences():
    scorer = StandIn(temperature=2.0)
    outcome = type(
        "Outcome", (StandIn,), {"reference_scale": SimpleNamespace(temperature=2.0, unit="completion", reference=None)}
    )
    assert taken(groups_of(), scorer=scorer).metrics["temperature"] == 2.0
    assert taken(groups_of(), scorer=outcome()).metrics["temperature"] == 1.0


def test_the_order_of_rows_changes_neither_keys_nor_fingerprint():
    groups = groups_of(6)
    one, other = taken(groups), taken(groups[::-1])
    assert one.data_sha256 == other.data_sha256
    assert {pair.key: pair for pair in one.pairs} == {pair.key: pair for pair in other.pairs}
    assert one.pairs[0].key == pair_key(groups[0], Pair(0, 1))


def test_groups_without_a_prompt_are_prompts_of_their_own():
    found = taken([group(i, 1.0, 0.0, prompt="") for i in range(3)])
    assert len({pair.prompt for pair in found.pairs}) == found.metrics["num_prompts"] == 3


def test_time_is_utc_in_seconds():
    moment = datetime(2026, 11, 21, 10, 30, 0, 999, tzinfo=timezone(timedelta(hours=1)))
    assert taken(groups_of(), now=moment).at == "2026-11-21T09:30:00Z"
    assert taken(groups_of()).at.endswith("Z")


def test_an_ensemble_has_its_disagreement():
    """Members 0, 1 and 2 above the score everywhere: the standard deviation is sqrt(2/3)."""
    found = taken(groups_of(), scorer=StandIn(members=(0.0, 1.0, 2.0)))
    assert found.metrics["disagreement"]["mean"] == pytest.approx(np.sqrt(2 / 3))
    assert found.metrics["disagreement"]["std"] == pytest.approx(0)


def test_the_gap_is_of_z_scores():
    """The model's reference 0, 2 has mean 1 and std 1; the ensemble's mean member is 1 above the score."""
    found = taken(groups_of(), scorer=StandIn(reference=(0.0, 2.0)), against=StandIn(members=(0.0, 2.0)))
    assert found.metrics["gap"]["mean"] == pytest.approx(-2.0)
    assert found.metrics["gap"]["scales"] == ["z", "z"]
    assert found.metrics["gap"]["against"] == StandIn().fingerprint
    assert found.metrics["gap"]["num"] == 80
    assert taken(groups_of(), against=StandIn()).metrics["gap"]["scales"] == ["raw", "raw"]


def test_ties_are_counted_and_no_preference():
    found = taken([*groups_of(), group(90, 1.0, 0.0, pairs=(Pair(0, 1, tie=True),))])
    assert (found.metrics["tied_labels"], len(found.pairs)) == (1, 40)


def test_soft_labels_prefer_the_likelier_side():
    found = taken([group(0, 1.0, 3.0, pairs=(Pair(0, 1, p_chosen=0.2),))])
    assert (found.pairs[0].chosen, found.pairs[0].rejected) == (3.0, 1.0)


@pytest.mark.parametrize("kind", ["canary", "baseline", "fresh"])
def test_doubles_and_contradictions_are_refused(kind):
    groups = groups_of(5)
    double = replace(groups[1], source="more.jsonl:9")
    turned = replace(double, pairs=(Pair(1, 0),))
    tied = replace(double, pairs=(Pair(0, 1, tie=True),))
    with pytest.raises(DataError, match=r"^2 comparisons come twice; the first: more.jsonl:9, after rows.jsonl:2"):
        taken([*groups, double, double], kind)
    for contradiction in (turned, tied):
        with pytest.raises(DataError, match=r"^1 comparisons contradict an earlier one; the first: more.jsonl:9, aft"):
            taken([*groups, double, contradiction], kind)


def test_the_same_texts_in_another_row_order_are_a_double_too():
    one = groups_of(1)[0]
    swapped = replace(one, completions=one.completions[::-1], pairs=(Pair(1, 0),))
    with pytest.raises(DataError, match="come twice"):
        taken([one, swapped])


def test_rows_that_the_model_cannot_read():
    unreadable = PromptGroup("p", ("long 1", "no 2"), (Pair(0, 1),), source="rows.jsonl:77")
    found = taken([*groups_of(), unreadable], left_out=2)
    assert (found.metrics["left_out"], len(found.pairs)) == (3, 40)
    for kind in ("canary", "baseline"):
        with pytest.raises(DataError, match=f"1 of 41 {kind} rows cannot be scored; the first: rows.jsonl:77"):
            taken([*groups_of(), unreadable], kind)


def test_other_than_raw_scores_and_rows_without_preference_are_refused():
    with pytest.raises(ConfigError, match="raw scores"):
        taken(groups_of(), scorer=StandIn(scale="z"))
    with pytest.raises(DataError, match="say no preference"):
        taken([PromptGroup("p", ("a 1", "b 2"))])


def test_contract_and_settings(tmp_path):
    scorer = StandIn()
    assert contract_sha256(scorer) is None
    (tmp_path / "reward_contract.json").write_text("{}")
    model = SimpleNamespace(folder=tmp_path, contract=object())
    one, two = SimpleNamespace(checkpoints=(model,)), SimpleNamespace(checkpoints=(model, model))
    assert contract_sha256(one) == hashlib.sha256(b"{}").hexdigest()
    assert contract_sha256(two) not in (None, contract_sha256(one))
    settings = settings_of(scorer)
    assert {"dtype", "layout", "threads", "machine", "torch", "transformers", "rewardlab"} <= settings.keys()
    json.dumps(settings)


def test_a_model_calibrated_again_has_the_same_weights(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    contract = tmp_path / FILE_NAME
    found = []
    for text in ("{}", '{"temperature": 2}'):
        contract.write_text(text)
        loaded = SimpleNamespace(folder=tmp_path, fingerprint=fingerprint_of(tmp_path))
        found.append(SimpleNamespace(loaded=loaded, fingerprint=loaded.fingerprint, contract=None))
    assert found[0].fingerprint != found[1].fingerprint
    assert weights_of(found[0]) == weights_of(found[1])
    before = weights_of(found[0])
    reading = {"read_out": "", "head": ReadOut(), "template_sha256": "", "begin_token": None, "end_token": ""}
    cut = [SimpleNamespace(**reading, max_length=most, truncation="") for most in (36, 256)]
    assert len({weights_of(SimpleNamespace(**{**vars(found[0]), "contract": one})) for one in cut}) == 2
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert weights_of(found[0]) != before
    assert taken(groups_of(), scorer=StandIn()).metrics["weights"] == StandIn().fingerprint  # more than a checkpoint


def test_each_comparison_keeps_its_gap():
    """Twice the score on the same texts, both raw: the mean of a comparison's two completions is its gap."""
    found = taken(groups_of(4), scorer=StandIn(factor=2.0), against=StandIn())
    for pair in found.pairs:
        assert pair.gap == pytest.approx((pair.chosen + pair.rejected) / 4)
