"""Encoders with a pruned last layer give transformers' own scores and gradients, or refuse; never anything else.

The oracle is the same model's forward and autograd before pruning is enabled. Batches have rows of many lengths, so
that a mask or a position of the wrong token would show.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from rewardlab.errors import CheckpointError
from rewardlab.modeling.encoder_pruning import FirstRow, disable_encoder_pruning, enable_encoder_pruning
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.forward import model_inputs, pad
from rewardlab.modeling.packed_forward import last_layer
from rewardlab.modeling.parity import choose_layout
from rewardlab.modeling.preparing import set_dropout_to_zero

# A window of 4 tokens to each side, in the last layer: the first token then does not see all of its sequence.
LOCAL = {"local_attention": 8, "layer_types": ["full_attention", "sliding_attention"]}
EXACT: list[tuple[str, dict[str, Any]]] = [
    ("bert", {}),
    ("roberta", {}),
    ("camembert", {}),
    ("electra", {}),
    ("distilbert", {}),
    ("modernbert", LOCAL),
    ("modernbert", {**LOCAL, "layer_types": ["sliding_attention", "full_attention"]}),
]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("modernbert", {"classifier_pooling": "mean"}, "reads more than the first token"),
    ("albert", {}, "no list of layers"),
    ("modernbert_decoder", {}, "cannot be pruned"),  # its head has an encoder's name, but reads the last token
]


def sequences() -> list[list[int]]:
    draw = random.Random(0)
    return [[2, *(draw.randrange(3, 290) for _ in range(length)), 1] for length in (1, 2, 3, 4, 5, 9, 17, 30)]


def scores_and_gradient(model: Any, batches: list[dict[str, torch.Tensor]], **arguments: Any) -> tuple[Any, Any]:
    """Scores of all rows, and the gradient of a mixture of them with weights of both signs."""
    scores = torch.cat([model(**batch, **arguments).logits.squeeze(-1) for batch in batches])
    (scores * torch.linspace(-1, 1.5, len(scores))).sum().backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return scores.detach(), gradient


def batches_of(model: Any) -> list[dict[str, torch.Tensor]]:
    """All in one padded batch; one row alone, for which transformers gives no mask; widths like the heads' number."""
    ids = sequences()
    return [model_inputs(model, pad(rows, 0)) for rows in (ids, [ids[7]], ids[:1], ids[:2], [ids[6], ids[5]])]


def assert_equal(found: tuple[Any, Any], truth: tuple[Any, Any]) -> None:
    assert (found[0] - truth[0]).abs().max() < 1e-5
    size = sum(true.square().sum() for true in truth[1].values()).sqrt()
    # Queries of the last layer away from the first token have a gradient of 0, and may have none.
    assert set(found[1]) <= set(truth[1])
    distance = sum((found[1].get(name, torch.zeros(())) - true).square().sum() for name, true in truth[1].items())
    assert distance.sqrt() / size < 1e-5


@pytest.mark.parametrize(("family", "changes"), EXACT)
def test_pruned_scores_and_gradients_equal_the_plain_forward(make_model, family: str, changes: dict[str, Any]) -> None:
    model = make_model(family, **changes)
    set_dropout_to_zero(model)
    own = model.config._attn_implementation
    batches = batches_of(model)
    truth = scores_and_gradient(model, batches)
    assert truth[0].std() > 0.01  # else nothing would be compared
    enable_encoder_pruning(model)
    enable_encoder_pruning(model)  # twice changes nothing
    assert_equal(scores_and_gradient(model, batches, packing_plan=FirstRow()), truth)
    assert_equal(scores_and_gradient(model, batches), truth)  # a plain call of an enabled model
    assert model.config._attn_implementation == own
    assert_equal(scores_and_gradient(model, batches, packing_plan=FirstRow()), truth)
    scores = Engine(model, "pruned", tokens_per_batch=40).score(sequences())
    assert scores == pytest.approx(truth[0][: len(scores)].tolist(), abs=1e-5)


def test_deberta_v2_is_refused_or_exact(make_model) -> None:
    """Its attention is its own, so that there is nothing to capture, and nothing may change."""
    model = make_model("deberta_v2")
    set_dropout_to_zero(model)
    batches = batches_of(model)
    truth = scores_and_gradient(model, batches)
    try:
        enable_encoder_pruning(model)
    except CheckpointError:
        assert_equal(scores_and_gradient(model, batches), truth)
    else:
        assert_equal(scores_and_gradient(model, batches, packing_plan=FirstRow()), truth)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_gradient_checkpointing(make_model, family: str, reentrant: bool) -> None:
    model = make_model(family)
    set_dropout_to_zero(model)
    batches = batches_of(model)
    truth = scores_and_gradient(model, batches)
    enable_encoder_pruning(model)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()
    assert_equal(scores_and_gradient(model, batches, packing_plan=FirstRow()), truth)


def test_the_last_layer_runs_at_the_first_token_alone(make_model) -> None:
    model = make_model("bert")
    engine = Engine(model, "pruned")
    seen: list[int] = []
    for layer in model.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    engine.score([[2, 5, 6, 7, 1], [2, 5, 1]])
    assert seen == [5, 1]


@pytest.mark.parametrize(("family", "changes", "reason"), REFUSED)
def test_models_that_read_more_are_refused_and_left_alone(make_model, family, changes, reason: str) -> None:
    model = make_model(family, **changes)
    set_dropout_to_zero(model)
    model.train()
    own = model.config._attn_implementation
    batches = batches_of(model)
    truth = scores_and_gradient(model, batches)
    with pytest.raises(CheckpointError, match=reason) as raised:
        enable_encoder_pruning(model)
    assert raised.value.hint == "use the padded layout"
    assert model.training
    assert model.config._attn_implementation == own
    assert "forward" not in vars(model)
    assert_equal(scores_and_gradient(model, batches), truth)
    choice = choose_layout(model, [sequences()[:4], sequences()[4:]], longest=40, with_gradients=True)
    assert choice.layout == "padded"
    assert reason in choice.refused[0][1]


def test_the_model_stays_as_it_was(make_model, tmp_path) -> None:
    model = make_model("bert").train()
    own = model.config._attn_implementation
    model.save_pretrained(tmp_path / "before")
    enable_encoder_pruning(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model(**batches_of(model)[0], packing_plan=FirstRow())
    model.save_pretrained(tmp_path / "enabled")  # while our attention is in use
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "enabled" / file).read_bytes() == (tmp_path / "before" / file).read_bytes()
    disable_encoder_pruning(model)
    disable_encoder_pruning(model)
    assert model.config._attn_implementation == own
    assert "forward" not in vars(model)
    assert "forward" not in vars(last_layer(model))
