"""The contract's JSON: what is written is read back, and what is not a contract is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from rewardlab.errors import ContractError
from rewardlab.modeling.contract import FILE_NAME, HeadRecord, load_contract


def test_round_trip(reward_model: Path, tmp_path: Path) -> None:
    contract = load_contract(reward_model)
    assert contract is not None
    contract.save(tmp_path)
    assert load_contract(tmp_path) == contract


def test_no_file_is_no_contract(tmp_path: Path) -> None:
    assert load_contract(tmp_path) is None


def test_what_a_trained_contract_states(reward_model: Path) -> None:
    contract = load_contract(reward_model)
    assert contract is not None
    assert contract.objective == {
        "name": "bradley_terry",
        "center_rewards_coefficient": 0.01,
        "label_smoothing": 0.0,
        "margin_from": "column",
    }
    assert contract.read_out == "last token that is not padding"
    assert contract.begin_token == "<bos>"
    assert contract.end_token == "<eos>"
    assert contract.reference is not None
    assert contract.reference.source == "held-out"
    assert contract.reference.num_scores == 32
    assert contract.reference.quantiles["0"] <= contract.reference.mean <= contract.reference.quantiles["1"]
    assert contract.tolerances["float32"] < contract.tolerances["bfloat16"]
    assert set(contract.held_out_metrics) >= {"accuracy", "log_loss", "margin", "longer_wins"}
    assert len(contract.data["train"]["sha256"]) == 64
    assert len(contract.probes) >= 8


def test_an_unknown_key_is_refused(reward_model: Path, tmp_path: Path) -> None:
    record = json.loads((reward_model / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps({**record, "surprise": 1}))
    with pytest.raises(ContractError, match="surprise"):
        load_contract(tmp_path)


def test_nan_is_never_written(reward_model: Path, tmp_path: Path) -> None:
    contract = load_contract(reward_model)
    assert contract is not None
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(contract, temperature=float("nan")).save(tmp_path)


def test_the_scale_knows_what_its_temperature_was_fitted_on(reward_model: Path) -> None:
    """Contracts that do not say fitted theirs on pairs."""
    contract = load_contract(reward_model)
    assert contract is not None
    for calibration, unit, other in (({}, "pair", "completion"), ({"unit": "completion"}, "completion", "pair")):
        fitted = dataclasses.replace(contract, temperature=2.0, calibration=calibration)
        assert (fitted.scale.reference, fitted.scale.temperature, fitted.scale.unit) == (contract.reference, 2.0, unit)
        assert fitted.temperature_of(unit) == 2.0
        assert fitted.temperature_of(other) is None


def test_heads_round_trip_with_their_scales(reward_model: Path, tmp_path: Path) -> None:
    contract = load_contract(reward_model)
    assert contract is not None
    assert contract.reference is not None
    heads = [
        HeadRecord(contract.reference, 2.0, {"unit": "pair"}, [0.5, 1.5], {"float32": 1e-5}),
        HeadRecord(None, None, {}, [0.25, -1.0]),
    ]
    dataclasses.replace(contract, heads=heads, heads_sha256="ab").save(tmp_path)
    again = load_contract(tmp_path)
    assert again is not None
    assert (again.heads, again.heads_sha256) == (heads, "ab")
    assert again.heads[0].scale.transform([contract.reference.mean + 3.0], "calibrated") == pytest.approx([1.5])
    assert again.heads[0].tolerance("float32") == 1e-5
    with pytest.raises(ContractError, match="no tolerance for dtype bfloat16"):
        again.heads[1].tolerance("bfloat16")


def test_a_contract_from_before_there_were_heads(reward_model: Path, tmp_path: Path) -> None:
    record = json.loads((reward_model / FILE_NAME).read_text())
    assert record.pop("heads") == []
    assert record.pop("heads_sha256") == ""
    (tmp_path / FILE_NAME).write_text(json.dumps(record))
    assert load_contract(tmp_path) == load_contract(reward_model)


def test_lineage_is_kept_and_older_contracts_have_none(reward_model: Path, tmp_path: Path) -> None:
    contract = load_contract(reward_model)
    assert contract is not None
    assert contract.lineage == []
    ancestor = {"name": "before", "fingerprint": "f", "data": {}, "held_out_accuracy": None}
    dataclasses.replace(contract, lineage=[ancestor]).save(tmp_path)
    again = load_contract(tmp_path)
    assert again is not None
    assert again.lineage == [ancestor]
    record = json.loads((tmp_path / FILE_NAME).read_text())
    del record["lineage"]
    (tmp_path / FILE_NAME).write_text(json.dumps(record))
    older = load_contract(tmp_path)
    assert older is not None
    assert older.lineage == []
