"""One head of several becomes a reward model of its own, with that head's scores and scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardlab.calibration.reference import ReferenceStatistics, reference_statistics
from rewardlab.errors import ConfigError, ContractError
from rewardlab.metrics.known import evaluate_known
from rewardlab.modeling import head_export
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.contract import HeadRecord, load_contract
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.ensemble_heads import Heads, head_scores, load_heads, use_heads
from rewardlab.modeling.head_export import export_head
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Pair, PromptGroup

PROMPTS, ANSWERS = ["Write about the sea."] * 3, ["The sea is long.", "No.", "and the wind of Paris"]


def scale_of(head: int) -> ReferenceStatistics:
    return reference_statistics([head + 0.5, head + 1.5, head - 1.0], "held-out", sha256="ab")


def metrics_of(head: int) -> dict[str, Any]:
    """As of seven held-out pairs."""
    groups = [PromptGroup(f"p{i}", ["a", "b"], [Pair()]) for i in range(7)]
    return evaluate_known(groups, [[float(i > head), 0.5] for i in range(7)]).to_dict()


@pytest.fixture(scope="module")
def ensemble(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads") / "rm"
    prepared = prepare_for_training(base_model, seed=0, ensemble_heads=3)
    heads = Heads.of(prepared.model)
    use_heads(prepared.model, heads.mean)
    save_reward_model(
        folder,
        prepared.model,
        prepared.tokenizer,
        prepared.template,
        max_length=64,
        provenance=Provenance(
            {"name": "bradley_terry"}, training={"base_model": "base", "seed": 0}, lineage=[{"fingerprint": "f"}]
        ),
        heads=heads,
        head_records=[
            HeadRecord(scale_of(h), 1.5 + h, {"unit": "pair", "num_pairs": 7}, [], held_out_metrics=metrics_of(h))
            for h in range(3)
        ],
    )
    return folder


def test_an_exported_head_scores_as_it_did(ensemble: Path, tmp_path: Path) -> None:
    result = export_head(ensemble, 2, tmp_path / "out")
    assert result.to_dict()["head"] == 2
    assert (result.num_heads, result.path) == (3, str(tmp_path / "out"))
    assert result.max_difference <= result.tolerance

    scorer = Scorer.from_pretrained(tmp_path / "out")
    whole = load_reward_model(ensemble)
    heads = load_heads(ensemble)
    assert heads is not None
    use_heads(whole.model, heads)
    encoder = whole.encoder()
    ids = [
        encoder.encode(group).sequences[0]
        for group in (PromptGroup(p, (a,)) for p, a in zip(PROMPTS, ANSWERS, strict=True))
    ]
    expected = head_scores(Engine(whole.model), ids)[:, 2].tolist()
    assert scorer.score(PROMPTS, ANSWERS) == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(scorer.loaded.model.score.weight.detach(), heads.weight[2:])

    contract = load_contract(tmp_path / "out")
    assert contract is not None
    assert contract.reference == scale_of(2)
    assert (contract.temperature, contract.calibration) == (3.5, {"unit": "pair", "num_pairs": 7})
    assert contract.heads == []
    assert (contract.training["head"], contract.training["of_heads"]) == (2, 3)
    assert contract.training["exported_from"] == whole.fingerprint
    assert contract.training["base_model"] == "base"
    assert contract.held_out_metrics == metrics_of(2)
    assert contract.lineage == [{"fingerprint": "f"}]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "head 2 (from 0) of the 3 of another checkpoint" in card


@pytest.mark.parametrize("head", [3, -1])
def test_a_head_that_there_is_not(ensemble: Path, tmp_path: Path, head: int) -> None:
    with pytest.raises(ConfigError, match=f"there is no head {head}") as error:
        export_head(ensemble, head, tmp_path / "out")
    assert error.value.hint == "0 to 2"


def test_a_model_without_heads(reward_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no heads besides its own"):
        export_head(reward_model, 0, tmp_path / "out")


def test_what_is_in_the_way(ensemble: Path) -> None:
    with pytest.raises(ConfigError, match="is not an empty folder"):
        export_head(ensemble, 0, ensemble)


def test_a_head_that_scores_otherwise_leaves_nothing(
    ensemble: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong head is put in: the stored scores of the probes say so."""
    monkeypatch.setattr(head_export, "use_heads", lambda model, heads: use_heads(model, Heads(-heads.weight)))
    with pytest.raises(ContractError, match="does not give the scores of head 1"):
        export_head(ensemble, 1, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
