"""Training the head alone: when its features can be kept, that they are what it reads, that the trunk rests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.preparing import Mode, prepare_for_training
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import encode_groups, sequences_of, targets_in
from rewardlab.training.head_features import FeatureCollator, FeaturedGroup, HeadFeatures, only_head_is_trained
from rewardlab.training.supervision import supervision_of
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup, ReadOut


def test_head_only_training_computes_the_trunk_once(
    base_model: Path, tmp_path: Path, pairs: list[PromptGroup], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs and two evaluations, no trunk forward after the first pass, and the very same head at the end."""

    def train() -> tuple[torch.Tensor, int]:
        prepared = prepare_for_training(base_model, seed=0, mode="head_only")
        arguments = RewardArguments(
            output_dir=str(tmp_path), max_length=128, use_cpu=True, save_strategy="no", num_train_epochs=2, seed=0,
            learning_rate=1e-2, eval_strategy="epoch", disable_tqdm=True, per_device_train_batch_size=8,
        )  # fmt: skip
        trainer = RewardTrainer(prepared.model, arguments, pairs[:24], pairs[24:], processing_class=prepared.tokenizer)
        calls = 0

        def count(*_: Any) -> None:
            nonlocal calls
            calls += 1

        prepared.model.base_model.register_forward_pre_hook(count)
        trainer.train()
        return prepared.model.score.weight.detach().clone(), calls

    with monkeypatch.context() as patch:
        patch.setattr("rewardlab.training.trainer.only_head_is_trained", lambda *_: False)
        expected, many = train()
    found, few = train()
    assert torch.allclose(found, expected, atol=1e-6)
    assert few < many / 1.5


def test_ranks_share_a_micro_batch_by_read_outs_and_may_have_none() -> None:
    """Shares of 3 groups of 1, 2 and 3 read-outs: 3 of 1 + 2 beside 3; of one group, all and nothing."""
    supervision = supervision_of(RewardArguments("unused", use_cpu=True))

    def featured(number: int, rows: int) -> FeaturedGroup:
        group = PromptGroup(f"{number}", ["a", "b"], [Pair()])
        return FeaturedGroup(EncodedGroup(group, ((1, 2), (1, 3)), 1), torch.full((rows, 4), float(number)))

    three = [featured(number, rows) for number, rows in enumerate((1, 2, 3))]
    first, second = (FeatureCollator(supervision, Ranks(index, 2))(three) for index in range(2))
    assert first["features"][:, 0].tolist() == [2, 2, 2]
    assert second["features"][:, 0].tolist() == [0, 1, 1]
    assert first["num_tokens"] == second["num_tokens"] == 12
    nothing = FeatureCollator(supervision, Ranks(1, 2))(three[:1])
    assert nothing == {"features": None, "targets": None, "num_tokens": 4}
    assert targets_in(nothing) == []


@pytest.mark.parametrize(
    ("mode", "layout", "kind", "dropout", "expected"),
    [
        ("head_only", "tree", "sequence", 0.0, True),
        ("head_only", "tree", "step", 0.0, True),
        ("full", "tree", "sequence", 0.0, False),  # the trunk moves
        ("head_only", "padded", "sequence", 0.0, False),  # a decoder's head reads every token there
        ("head_only", "tree", "token", 0.0, False),  # too many features
        ("head_only", "tree", "sequence", 0.1, False),  # other features in each epoch
    ],
)
def test_when_features_can_be_kept(
    base_model: Path, mode: Mode, layout: Any, kind: Any, dropout: float, expected: bool
) -> None:
    model = prepare_for_training(base_model, seed=0, mode=mode).model
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = dropout
    read_out = {
        "sequence": ReadOut(),
        "token": ReadOut("token", "mean"),
        "step": ReadOut("step", "min", 2, "<|step|>"),
    }[kind]
    assert only_head_is_trained(model, read_out, layout) is expected


def test_the_head_gives_from_features_what_the_model_gives(base_model: Path, pairs: list[PromptGroup]) -> None:
    """Batches hold each group's own rows; the kept groups follow a head that moves; other groups are not kept."""
    prepared = prepare_for_training(base_model, seed=0, mode="head_only")
    supervision = supervision_of(RewardArguments("unused", use_cpu=True))
    examples = encode_groups(pairs[:5], Encoder(prepared.tokenizer, 128), supervision).examples
    engine = Engine(prepared.model, "tree")
    features = HeadFeatures(prepared.model, lambda examples: engine.features(*sequences_of(examples)))
    groups = features.featured(examples)
    batch = FeatureCollator(supervision)(groups[1:3])
    expected = torch.tensor(engine.score([s for e in examples[1:3] for s in e.sequences]))
    torch.testing.assert_close(features.outputs(batch["features"]).squeeze(-1), expected, rtol=0, atol=1e-6)
    assert features.outputs(batch["features"]).requires_grad
    assert batch["num_tokens"] == sum(len(s) for e in examples[1:3] for s in e.sequences)
    assert (batch["targets"].chosen.tolist(), batch["targets"].rejected.tolist()) == ([0, 2], [1, 3])

    assert features.of_kept(examples) is None
    features.keep(examples)
    with torch.no_grad():
        prepared.model.score.weight.mul_(2)
    kept = features.of_kept(examples)
    assert kept is not None
    assert not kept.requires_grad
    again = torch.tensor(engine.score([s for e in examples for s in e.sequences]))
    torch.testing.assert_close(kept.squeeze(-1), again, rtol=0, atol=1e-6)
    assert features.of_kept(examples[:3]) is None
