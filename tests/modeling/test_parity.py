"""The gate: rules with a config that triggers each, and a comparison that finds what rules do not know.

What is right and wrong here is known by construction: models are taken that packed rows cannot serve, or the packed
attention of a healthy one is broken by the test.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rewardlab.errors import ConfigError
from rewardlab.modeling import parity, tree_attention
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.parity import LayoutChoice, choose_layout, drops_out, rule_against
from rewardlab.modeling.preparing import set_dropout_to_zero

LONGEST = 40


def _groups() -> list[list[list[int]]]:
    draw = random.Random(0)

    def ids(count: int) -> list[int]:
        return [draw.randrange(3, 290) for _ in range(count)]

    one, two = ids(20), ids(10)
    return [[[*one, 10, *ids(5)], [*one, 11], [*one, 12, *ids(9)]], [[*two, 13, *ids(2)], [*two, 14, *ids(3)]]]


GROUPS = _groups()


def choose(model: Any, **options: Any) -> LayoutChoice:
    return choose_layout(model, GROUPS, **{"longest": LONGEST, **options})


@pytest.fixture
def llama(make_model):
    return make_model("llama")


# -- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("falcon", {}, "its attention adds a bias by distance (ALiBi)"),
        ("llama", {"is_causal": False}, "its attention is not causal, so a prefix sees what follows it"),
        ("jamba", {}, "it has layers of kind linear_attention"),
        ("minimax", {}, "it has layers of kind linear_attention"),
        ("qwen3_next", {}, "it has layers of kind linear_attention"),
        ("qwen2", {"layer_types": ["chunked_attention", "full_attention"]}, "it has layers of kind chunked_attention"),
        (
            "llama",
            {"attention_chunk_size": LONGEST - 1},
            "its attention goes by chunks of 39 tokens, and sequences have up to 40",
        ),
        (
            "llama",
            {
                "max_position_embeddings": LONGEST - 1,
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
            },
            "its rotary positions change with the longest sequence of a batch beyond 39 tokens",
        ),
    ],
)
def test_rules_by_config(make_model, family: str, changes: dict[str, Any], reason: str) -> None:
    model = make_model(family, **changes)
    choice = choose(model)
    assert choice == LayoutChoice("padded", (("tree", reason), ("packed", reason)))
    assert "forward" not in vars(model)


def test_a_chunk_as_long_as_the_sequences_is_no_reason(make_model) -> None:
    model = make_model("llama", attention_chunk_size=LONGEST)
    assert rule_against(model, "tree", LONGEST) is None


def test_devices_without_a_kernel(llama) -> None:
    assert rule_against(llama.to("meta"), "tree", LONGEST) == "there is no packed attention for meta"


@pytest.mark.parametrize(("family", "changes"), [("gpt2", {}), ("llama", {"attention_dropout": 0.1}), ("bert", {})])
def test_dropout_matters_in_training_only(make_model, family: str, changes: dict[str, Any]) -> None:
    model = make_model(family, **changes)
    layout = "pruned" if family == "bert" else "tree"
    assert drops_out(model)
    assert rule_against(model, layout, LONGEST, training=True) == "its dropout is on; disable_dropout switches it off"
    assert rule_against(model, layout, LONGEST) is None
    assert choose(model, with_gradients=True).layout == "padded"
    assert choose(model).layout == layout
    set_dropout_to_zero(model)
    assert not drops_out(model)
    assert choose(model, with_gradients=True).layout == layout


def test_adapter_dropout_leaves_the_packed_layout(llama) -> None:
    """A mask drawn once for a prefix would be one mask for all its completions; packed sequences have their own."""
    options = LoraConfig(task_type="SEQ_CLS", r=2, lora_dropout=0.1, target_modules=["q_proj"])
    wrapped = get_peft_model(llama, options).train()
    model = wrapped.get_base_model()
    assert not drops_out(model)
    choice = choose(model, with_gradients=True)
    assert choice.layout == "packed"
    reason = "with adapter dropout the completions of a prompt would share its mask"
    assert choice.refused == (("tree", reason),)
    assert choose(model).layout == "tree"  # scoring has no dropout


# -- what a run shows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "gpt_oss", "gemma2"])
@pytest.mark.parametrize("with_gradients", [True, False])
def test_healthy_models_get_the_tree(make_model, family: str, with_gradients: bool) -> None:
    """Mistral's and GPT-OSS's windows of 8 are shorter than the sequences, and are handed on."""
    model = make_model(family)
    set_dropout_to_zero(model)
    choice = choose(model, with_gradients=with_gradients)
    assert (choice.layout, choice.refused) == ("tree", ())
    assert choice.score_difference is not None
    assert choice.score_difference < 1e-5
    assert (choice.gradient_difference is not None) == with_gradients
    assert (choice.gradient_difference or 0.0) < 1e-5


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("bloom", {}, "only 0 of its 2 layers go through transformers' attention interface"),
        ("gptj", {}, "only 0 of its 2 layers go through transformers' attention interface"),
        ("nemotron", {}, "NemotronAttention did not hand on the packing plan"),
        ("stablelm", {}, "StableLmAttention did not hand on the packing plan"),
        ("phimoe", {}, "its layers do not say that they see 8 tokens only, and sequences have up to 40"),
        ("gemma3", {"use_bidirectional_attention": True}, "its scores differ from the padded forward's by"),
        ("falcon", {"alibi": False}, "FalconForSequenceClassification does not run over a packed row"),
    ],
)
def test_models_found_out_by_running_them(make_model, family: str, changes: dict[str, Any], reason: str) -> None:
    model = make_model(family, **changes)
    set_dropout_to_zero(model)
    expected = score_sequences(model, GROUPS[0])
    choice = choose(model, with_gradients=True)
    assert choice.layout == "padded"
    assert [layout for layout, _ in choice.refused] == ["tree", "packed"]
    assert all(reason in said for _, said in choice.refused)
    assert "forward" not in vars(model)
    assert score_sequences(model, GROUPS[0]) == expected


def test_a_window_that_is_not_handed_on_does_not_matter_to_shorter_sequences(make_model) -> None:
    """PhiMoE keeps its window to itself. No text compared need be long, so the longest to come decides."""
    model = make_model("phimoe", sliding_window=LONGEST)
    assert choose(model).layout == "tree"
    assert choose(model, longest=LONGEST + 1).layout == "padded"


def test_a_tree_that_is_wrong_is_refused_and_the_packed_layout_taken(llama, monkeypatch) -> None:
    """Completions that do not see their prefix: nothing but the tree has prefixes."""
    monkeypatch.setattr(tree_attention, "_runs", lambda segments: iter(()))
    choice = choose(llama, with_gradients=True)
    assert choice.layout == "packed"
    ((layout, reason),) = choice.refused
    assert layout == "tree"
    assert reason.startswith("its scores differ from the padded forward's by ")
    assert reason.endswith("(allowed 7.1e-05)")  # 1e-4 of the largest score
    assert str(choice).startswith("layout packed, scores within ")
    assert f"; not tree: {reason}" in str(choice)


def test_right_scores_with_a_wrong_gradient_are_refused_in_training(llama, monkeypatch) -> None:
    flash_backward = tree_attention._flash_backward

    def broken(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        to_q, to_k, to_v = flash_backward(*args, **kwargs)
        return to_q, to_k, 0.5 * to_v

    monkeypatch.setattr(tree_attention, "_flash_backward", broken)
    choice = choose(llama, with_gradients=True)
    assert choice.layout == "padded"
    assert all(said.startswith("its gradient differs by ") for _, said in choice.refused)
    assert choose(llama).layout == "tree"


@pytest.mark.parametrize("with_gradients", [True, False])
def test_a_broken_model_is_refused(llama, with_gradients: bool) -> None:
    """Scores that are no numbers are equal to nothing, and must not pass a comparison."""
    with torch.no_grad():
        llama.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    choice = choose(llama, with_gradients=with_gradients)
    assert choice.layout == "padded"
    assert [layout for layout, _ in choice.refused] == ["tree", "packed"]


@pytest.mark.parametrize("family", ["ctrl", "modernbert_decoder"])
def test_decoders_with_a_head_of_another_name_are_padded(make_model, family: str) -> None:
    assert choose(make_model(family)).layout == "padded"


@pytest.mark.parametrize("family", ["bert", "deberta_v2", "albert", "modernbert"])
def test_encoders_are_never_wrong(make_model, family: str) -> None:
    model = make_model(family)
    set_dropout_to_zero(model)
    expected = score_sequences(model, GROUPS[0])
    choice = choose(model, with_gradients=True)
    assert choice.layout in ("pruned", "padded")
    assert score_sequences(model, GROUPS[0], layout=choice.layout) == pytest.approx(expected, abs=1e-5)


# -- read at tokens --------------------------------------------------------------------------------------------------

READOUTS = [[tuple(range(4, len(sequence), 2)) for sequence in group] for group in GROUPS]


@pytest.mark.parametrize(
    ("family", "head", "changes"),
    [
        ("llama", "token", {}),
        ("qwen3", "token", {"num_labels": 3}),
        ("mistral", "token", {"num_labels": 2}),
        ("llama", "language", {}),
        ("gemma2", "language", {"final_logit_softcapping": 0.5}),
        ("gpt2", "language", {}),
    ],
)
@pytest.mark.parametrize("with_gradients", [True, False])
def test_healthy_models_read_at_tokens_get_the_tree(
    make_model, family: str, head: str, changes: dict[str, Any], with_gradients: bool
) -> None:
    model = make_model(family, head, **changes)
    set_dropout_to_zero(model)
    choice = choose(model, readouts=READOUTS, with_gradients=with_gradients)
    assert (choice.layout, choice.refused) == ("tree", ())
    assert choice.score_difference is not None
    assert choice.score_difference < 1e-5
    assert (choice.gradient_difference or 0.0) < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "bert"])
def test_token_heads_of_encoders_are_padded(make_model, family: str) -> None:
    model = make_model(family, "token")
    set_dropout_to_zero(model)
    choice = choose(model, readouts=READOUTS, with_gradients=True)
    assert choice == LayoutChoice("padded", (("pruned", "its head is read at more tokens than the first"),))
    assert "forward" not in vars(model)


def test_a_wrong_layout_is_refused_where_tokens_are_read(make_model, monkeypatch) -> None:
    """Completions that do not see their prefix; and a language model whose logits are not scaled as its own are."""
    model = make_model("granite", "language", logits_scaling=1.5)
    assert choose(model, readouts=READOUTS).layout == "tree"
    with monkeypatch.context() as patch:
        patch.setattr(tree_attention, "_runs", lambda segments: iter(()))
        assert choose(model, readouts=READOUTS, with_gradients=True).layout == "packed"
    own = type(model).forward

    def unscaled(self: Any, logits_to_keep: Any = None, **kwargs: Any) -> Any:
        if logits_to_keep is None:  # the padded forward
            return own(self, **kwargs)
        out = own(self, logits_to_keep=logits_to_keep, **kwargs)
        out.logits = out.logits * self.config.logits_scaling
        return out

    monkeypatch.setattr(type(model), "forward", unscaled)
    choice = choose(model, readouts=READOUTS)
    assert choice.layout == "padded"
    assert all(said.startswith("its scores differ from the padded forward's by ") for _, said in choice.refused)


def test_a_few_read_outs_of_each_sequence_are_compared() -> None:
    """At most 16, the last among them: it decides how far a sequence is computed."""
    assert parity._some((3, 5, 8)) == (3, 5, 8)
    assert parity._some(tuple(range(16))) == tuple(range(16))
    assert parity._some(tuple(range(17))) == tuple(range(0, 17, 2))
    assert parity._some(tuple(range(100))) == tuple(range(1, 100, 7))


@pytest.mark.parametrize(("head", "readouts"), [("sequence", READOUTS), ("token", None)])
def test_read_outs_must_suit_the_head(make_model, head: str, readouts: Any) -> None:
    with pytest.raises(ValueError, match="read-outs must be given for a model with a token"):
        choose(make_model("llama", head), readouts=readouts)


# -- lower precision -------------------------------------------------------------------------------------------------


def test_autocast_may_differ_as_much_as_the_padded_forward_does(llama, monkeypatch) -> None:
    choice = choose(llama, with_gradients=True, autocast=torch.bfloat16)
    assert choice.layout == "tree"
    assert choice.score_difference is not None
    assert choice.score_difference > parity.SCORE_TOLERANCE  # it was run in bfloat16
    monkeypatch.setattr(tree_attention, "_runs", lambda segments: iter(()))
    assert choose(llama, with_gradients=True, autocast=torch.bfloat16).layout == "packed"


def test_weights_in_low_precision(llama, monkeypatch) -> None:
    llama.to(torch.bfloat16)
    assert choose(llama, with_gradients=True).layout == "tree"
    monkeypatch.setattr(tree_attention, "_runs", lambda segments: iter(()))
    assert choose(llama, with_gradients=True).layout == "packed"


# -- what is asked for, left behind and said -------------------------------------------------------------------------


def test_the_engine_asked_for_is_the_best_considered(llama, monkeypatch) -> None:
    assert choose(llama, engine="packed").layout == "packed"
    assert choose(llama, engine="packed").refused == ()
    assert choose(llama, engine="tree").layout == "tree"
    monkeypatch.setattr(parity, "_measure", None)  # nothing is run for the padded layout
    assert choose(llama, engine="padded") == LayoutChoice("padded")


def test_an_unknown_engine(llama) -> None:
    with pytest.raises(ConfigError, match="unknown engine 'flash'") as raised:
        choose(llama, engine="flash")
    assert raised.value.hint == "one of auto, tree, packed, padded"


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_left_behind(llama, training: bool) -> None:
    """No gradient that the first step would add to, no changed weight, and the mode as before."""
    llama.train(training)
    llama.score.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in llama.state_dict().items()}
    llama.model.norm.weight.grad = torch.ones_like(llama.model.norm.weight)
    choose(llama, with_gradients=True)
    assert llama.training == training
    assert all(parameter.grad is None for parameter in llama.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in llama.state_dict().items())


@pytest.mark.parametrize(
    ("choice", "level"),
    [
        (LayoutChoice("tree", (), 1e-7, 2e-7), logging.INFO),
        (LayoutChoice("padded"), logging.INFO),
        (LayoutChoice("packed", (("tree", "why"),), 1e-7), logging.WARNING),
        (LayoutChoice("padded", (("tree", "why"), ("packed", "why"))), logging.WARNING),
        (LayoutChoice("padded", (("pruned", "why"),)), logging.INFO),
    ],
)
def test_a_decoder_that_lost_speed_is_a_warning(choice: LayoutChoice, level: int, caplog) -> None:
    with caplog.at_level(logging.INFO):
        choice.log(logging.getLogger("test"))
    (record,) = caplog.records
    assert record.levelno == level
    assert record.getMessage() == f"engine: {choice}"


def test_the_sentence() -> None:
    choice = LayoutChoice("packed", (("tree", "its tree is wrong"),), 1.23e-7, 4e-8)
    assert str(choice) == (
        "layout packed, scores within 1.2e-07 of the padded forward, gradient within 4.0e-08"
        "; not tree: its tree is wrong"
    )
