"""Several heads beside a plain checkpoint: they are what was saved, in every layout, or they are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from rewardlab.errors import CheckpointError, ContractError
from rewardlab.modeling import ensemble_heads
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.contract import FILE_NAME, HeadRecord, load_contract
from rewardlab.modeling.engine import Engine, Layout
from rewardlab.modeling.ensemble_heads import (
    Heads,
    compare_heads,
    head_scores,
    initialise_heads,
    load_heads,
    require_heads_hold,
    use_heads,
)
from rewardlab.modeling.head import Float32Head, initialise_head
from rewardlab.modeling.loading import load_reward_model
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.verification import verify_checkpoint

SEQUENCES = [[2, 9, 10, 11, 1], [2, 9, 10, 12, 1], [2, *range(30, 50), 1]]


@pytest.fixture(scope="module")
def saved(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with three heads that nothing has trained."""
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
        provenance=Provenance({"name": "bradley_terry"}),
        heads=heads,
        head_records=[HeadRecord(None, None, {}, []) for _ in range(3)],
    )
    return folder


@pytest.fixture
def copied(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "rm"))


def heads_of(folder: Path) -> Heads:
    heads = load_heads(folder)
    assert heads is not None
    return heads


def test_anyone_loads_the_mean(saved: Path) -> None:
    """Transformers alone; the folder's top holds no weights but the model's, which servers would read."""
    model = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    assert model.config.num_labels == 1
    assert [path.name for path in saved.glob("*.safetensors")] == ["model.safetensors"]
    heads = heads_of(saved)
    torch.testing.assert_close(model.score.weight, heads.weight.mean(dim=0, keepdim=True))
    with torch.no_grad():
        hidden = model.model(torch.tensor(SEQUENCES[:2])).last_hidden_state[:, -1]
        expected = (hidden @ heads.weight.T).mean(dim=1, keepdim=True)
        torch.testing.assert_close(model(torch.tensor(SEQUENCES[:2])).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "layout"),
    [("qwen3", "tree"), ("qwen3", "packed"), ("qwen3", "padded"), ("bert", "pruned"), ("roberta", "padded")],
)
def test_every_layout_gives_each_head_its_score(
    make_model: Callable[..., PreTrainedModel], family: str, layout: Layout
) -> None:
    """Against a plain model with that head alone; the layout was taught before the heads came."""
    model = make_model(family)
    engine = Engine(model, layout)
    own = Heads.of(model)
    bias = None if own.bias is None else torch.tensor([0.5, -1.0, 2.0])
    heads = Heads(torch.randn(3, own.weight.shape[1], generator=torch.Generator().manual_seed(0)), bias)
    use_heads(model, heads)
    found = head_scores(engine, SEQUENCES)
    assert found.shape == (3, 3)
    for number in range(3):
        use_heads(model, heads.only(number))
        alone = torch.tensor(Engine(model, "padded").score(SEQUENCES))
        torch.testing.assert_close(found[:, number], alone, rtol=1e-5, atol=1e-5)
    use_heads(model, heads.mean)
    assert model.config.num_labels == 1
    torch.testing.assert_close(head_scores(engine, SEQUENCES), found.mean(dim=1, keepdim=True), rtol=1e-5, atol=1e-5)


def test_each_head_starts_as_a_head_does() -> None:
    """From a seed of its own, whatever their number, and not from a neighbouring run's."""

    def start(count: int, seed: int) -> torch.Tensor:
        head = Float32Head(16, count)
        initialise_heads(head, seed)
        assert not head.bias.any()
        return head.weight.detach()

    assert torch.equal(start(5, 42)[:3], start(3, 42))
    rows = torch.cat([start(3, 42), start(3, 43)])
    assert len({tuple(row.tolist()) for row in rows}) == 6
    one = Float32Head(16, 1)
    initialise_head(one, ensemble_heads.seed_of_head(42, 1))
    assert torch.equal(one.weight[0], start(3, 42)[1])


def test_heads_hold_and_are_verified(saved: Path) -> None:
    loaded = load_reward_model(saved)
    require_heads_hold(loaded, heads_of(saved), "tree")
    names = {check.name: check.ok for check in verify_checkpoint(saved).checks}
    assert names["ensemble heads"]
    assert all(names.values())
    assert verify_checkpoint(saved, dtype="bfloat16").ok


def test_a_plain_checkpoint_has_none(reward_model: Path, tmp_path: Path) -> None:
    assert load_heads(reward_model) is None
    assert load_heads(tmp_path) is None
    contract = load_contract(reward_model)
    assert contract is not None
    assert contract.heads == []
    assert load_heads(reward_model, contract) is None


def change_contract(folder: Path, change: Callable[[dict], object]) -> None:
    record = json.loads((folder / FILE_NAME).read_text())
    change(record)
    (folder / FILE_NAME).write_text(json.dumps(record))


def test_a_file_that_is_missing(copied: Path) -> None:
    (copied / ensemble_heads.FILE_NAME).unlink()
    with pytest.raises(CheckpointError, match="is missing: the contract says that this checkpoint has 3 heads"):
        load_heads(copied)
    with pytest.raises(CheckpointError, match="is missing"):
        verify_checkpoint(copied)
    load_reward_model(copied)  # the mean is still whole


@pytest.mark.parametrize("place", [-1, -4, 3])
def test_a_file_with_another_byte(copied: Path, place: int) -> None:
    path = copied / ensemble_heads.FILE_NAME
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match="is not the file that was saved with the contract"):
        verify_checkpoint(copied)


@pytest.mark.parametrize(
    ("weight", "message"),
    [((2, 32), "expected a weight of shape \\(3, hidden\\)"), ((3, 31), "heads of hidden size 31 without a bias")],
)
def test_a_file_of_another_shape(copied: Path, weight: tuple[int, int], message: str) -> None:
    digest = Heads(torch.ones(weight)).save(copied)
    change_contract(copied, lambda record: record.update(heads_sha256=digest))
    with pytest.raises(CheckpointError, match=message):
        verify_checkpoint(copied)


def test_a_file_that_holds_something_else(copied: Path) -> None:
    (copied / ensemble_heads.FILE_NAME).write_bytes(content := save({"other": torch.ones(3)}))
    change_contract(copied, lambda r: r.update(heads_sha256=ensemble_heads.hashlib.sha256(content).hexdigest()))
    with pytest.raises(CheckpointError, match="not the weights of heads"):
        load_heads(copied)


def test_heads_with_a_bias_do_not_fit_a_decoder(saved: Path) -> None:
    loaded = load_reward_model(saved)
    with pytest.raises(CheckpointError, match="with a bias do not fit"):
        use_heads(loaded.model, Heads(torch.ones(3, 32), torch.ones(3)))


def test_heads_that_do_not_give_the_promised_scores(saved: Path) -> None:
    """One head that is 1 % longer; and heads that are all right while the plain head is not their mean."""
    heads = heads_of(saved)
    weight = heads.weight.clone()
    weight[1] *= 1.01
    with pytest.raises(ContractError, match="do not give the scores that the contract promises"):
        require_heads_hold(load_reward_model(saved), Heads(weight))
    loaded = load_reward_model(saved)
    contract = loaded.contract
    assert contract is not None
    probes = [dataclasses.replace(probe, score=probe.score + 0.01) for probe in contract.probes]
    loaded = dataclasses.replace(loaded, contract=dataclasses.replace(contract, probes=probes))
    use_heads(loaded.model, heads)
    difference = compare_heads(loaded)
    assert difference.largest == pytest.approx(0.01, abs=1e-4)
    assert not difference.ok
    fewer = dataclasses.replace(contract, heads=contract.heads[:2])
    assert compare_heads(dataclasses.replace(loaded, contract=fewer)).largest == float("inf")
