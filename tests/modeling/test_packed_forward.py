"""Packed rows give transformers' own scores, losses and gradients, on every decoder family and inside every wrapper.

The oracle is transformers' padded forward and autograd, taken before anything of ours touches the model. The gradient
is that of a pairwise loss over the groups, and compared as a whole: relative L2 distance over all parameters.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from itertools import accumulate, chain
from typing import Any

import peft
import pytest
import torch
from torch.nn.functional import logsigmoid

from rewardlab.errors import CheckpointError
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.forward import model_inputs, pad
from rewardlab.modeling.packed_forward import _STATE, disable_packing, enable_packing, last_layer
from rewardlab.modeling.planner import Forward
from rewardlab.modeling.prefix_tree import tree_of
from rewardlab.modeling.preparing import set_dropout_to_zero
from rewardlab.modeling.tree_attention import ATTENTION_NAME, AttentionPlan

FAMILIES = [
    "arcee", "biogpt", "deepseek_v2", "deepseek_v3", "diffllama", "exaone4", "gemma", "gemma2", "gemma3", "glm", "glm4",
    "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "helium", "hunyuan_dense", "jetmoe", "llama", "minicpm3", "ministral",
    "mistral", "mixtral", "olmo", "olmo2", "olmo3", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "starcoder2",
]  # fmt: skip
BUDGET = 40  # tokens; the windows of those who have one are 8


def _groups() -> list[list[list[int]]]:
    draw = random.Random(0)

    def ids(count: int) -> list[int]:
        return [draw.randrange(3, 290) for _ in range(count)]

    long, prompt, other, doubled = ids(50), ids(12), ids(3), ids(6)
    return [
        [ids(6)],  # K = 1
        [[*prompt, 10, *ids(4)], [*prompt, 11, *ids(2)]],
        [[*prompt[:7], 20 + k] for k in range(4)],  # one-token completions
        [[*other, 30 + k, *ids(k)] for k in range(9)],
        [[40, *ids(3)], [41, *ids(7)]],  # empty prefix
        [[*doubled, 50], [*doubled, 50], [*doubled, 51, 52]],  # identical completions
        [[60], [60, 61, 62]],  # one token in all; one sequence is the beginning of the other
        [[*long, 70, *ids(3)], [*long, 71, *ids(3)], [*long, 72]],  # a prefix over the budget: split
    ]


GROUPS = _groups()
Gradient = dict[str, torch.Tensor]


def bradley_terry(scores: torch.Tensor) -> torch.Tensor:
    """Mean over groups of the mean of -log sigmoid(first - other); of a lone completion against a score of 0."""
    losses, start = [], 0
    for group in GROUPS:
        own, start = scores[start : start + len(group)].double(), start + len(group)
        losses.append(-logsigmoid(own[0] - own[1:]).mean() if len(group) > 1 else -logsigmoid(own[0]))
    return torch.stack(losses).mean()


def taken_gradient(model: Any) -> Gradient:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def padded_truth(model: Any) -> tuple[torch.Tensor, torch.Tensor, Gradient]:
    """Scores, loss and gradient by transformers alone: all sequences in one padded batch."""
    batch = pad([sequence for group in GROUPS for sequence in group], 0)
    scores = model(**model_inputs(model, batch)).logits.squeeze(-1)
    loss = bradley_terry(scores)
    loss.backward()
    return scores.detach(), loss.detach(), taken_gradient(model)


def forwards_of(engine: Engine) -> Iterator[tuple[list[int], Forward]]:
    """The engine's forwards over the groups, each with the numbers of its scores."""
    starts = [sum(map(len, GROUPS[:i])) for i in range(len(GROUPS))]
    for part in engine.planner.parts(GROUPS):
        numbers = [starts[g] + k for g in part.groups for k in range(len(GROUPS[g]))]
        for forward in part.forwards:
            yield [numbers[i] for i in forward.indices], forward


def packed(model: Any, engine: Engine, *, prune: bool = True) -> tuple[torch.Tensor, torch.Tensor, Gradient]:
    """Scores, loss and gradient through packed rows; ``model`` may be a wrapper of the engine's."""
    places: list[int] = []
    parts = []
    for numbers, forward in forwards_of(engine):
        assert forward.row is not None
        places += numbers
        parts.append(model(**forward.inputs, packing_plan=AttentionPlan(forward.row, prune=prune)).logits.squeeze(-1))
    scores = torch.cat(parts)[torch.tensor(places).argsort()]
    loss = bradley_terry(scores)
    loss.backward()
    return scores.detach(), loss.detach(), taken_gradient(model)


def assert_equal(found, truth, way: str) -> None:
    scores, loss, gradient = found
    assert (scores - truth[0]).abs().max() < 1e-5, way
    assert abs(loss - truth[1]) < 1e-6, way
    assert set(gradient) == set(truth[2]), way
    distance = sum((gradient[name] - true).square().sum() for name, true in truth[2].items()).sqrt()
    assert distance / sum(true.square().sum() for true in truth[2].values()).sqrt() < 1e-5, way


def test_the_groups_are_laid_out_in_all_ways(make_model) -> None:
    """Rows of several trees, rows of one; the prefix that is over the budget stands in three rows."""
    of_group = [number for number, group in enumerate(GROUPS) for _ in group]
    engine = Engine(make_model("llama"), "tree", BUDGET)
    rows = [sorted({of_group[n] for n in numbers}) for numbers, _ in forwards_of(engine)]
    assert {len(group) for group in GROUPS} == {1, 2, 3, 4, 9}
    assert rows.count([7]) == 3
    assert max(map(len, rows)) > 2


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_losses_and_gradients_equal_the_padded_forward(make_model, family: str) -> None:
    model = make_model(family)
    set_dropout_to_zero(model)
    truth = padded_truth(model)
    assert truth[0].std() > 0.05  # else nothing would be compared
    tree = Engine(model, "tree", BUDGET)
    assert_equal(packed(model, tree), truth, "tree")
    assert_equal(packed(model, tree, prune=False), truth, "tree, not pruned")
    assert_equal(packed(model, Engine(model, "packed", BUDGET)), truth, "packed")


@pytest.mark.parametrize(
    ("family", "prunes"), [("llama", "rows"), ("gpt_oss", "rows"), ("gpt2", "scattered"), ("diffllama", "no")]
)
def test_how_the_last_layer_is_pruned(make_model, family: str, prunes: str) -> None:
    """GPT-2 reshapes its last layer's output to the row's size; DiffLlama's layers attend twice.

    Scores near 0 show no difference between right and wrong, so that a model with a small head is found out otherwise.
    """
    model = make_model(family)
    with torch.no_grad():
        model.score.weight.mul_(1e-5)
    enable_packing(model)
    assert getattr(model, _STATE).prunes == prunes


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_last_layer_runs_at_the_read_out_alone(make_model, family: str) -> None:
    """What pruning saves: the last MLP sees one token per sequence, every other one the whole row."""
    model = make_model(family)
    engine = Engine(model, "tree")
    seen: list[int] = []
    for module in model.modules():
        if type(module).__name__.endswith("MLP"):
            module.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    _, forward = next(forwards_of(engine))
    with torch.no_grad():
        engine.scores(forward)
    assert seen == [forward.num_tokens, len(forward.indices)]


# -- read at tokens --------------------------------------------------------------------------------------------------


def _positions() -> dict[str, list[list[tuple[int, ...]]]]:
    """Where each sequence of :data:`GROUPS` is read.

    Each completion token, as outcome models are; steps, as process models are, one of them in the prompt that is
    shared, none at the end; the prompt's last token and all but the last after it, as language models are.
    """
    ways: dict[str, list[list[tuple[int, ...]]]] = {"tokens": [], "steps": [], "next": []}
    for group in GROUPS:
        prefix = tree_of(group).prefix_length
        ways["tokens"].append([tuple(range(prefix, len(s))) for s in group])
        ways["steps"].append([(prefix // 2, *range(prefix, len(s) - 1, 2)) for s in group])
        ways["next"].append([tuple(range(max(0, prefix - 1), max(1, len(s) - 1))) for s in group])
    return ways


POSITIONS = _positions()
HEADS: list[tuple[str, str, dict[str, Any], str]] = [
    ("llama", "token", {"num_labels": 1}, "tokens"),
    ("llama", "token", {"num_labels": 3}, "steps"),
    ("qwen3", "token", {"num_labels": 1}, "tokens"),
    ("qwen3", "token", {"num_labels": 3}, "steps"),
    ("mistral", "token", {"num_labels": 2}, "steps"),
    ("mistral", "token", {"num_labels": 1}, "tokens"),
    ("gpt_oss", "token", {"num_labels": 2}, "steps"),
    ("llama", "language", {}, "next"),
    ("gemma2", "language", {"final_logit_softcapping": 0.5}, "next"),
    ("cohere", "language", {}, "next"),
    ("granite", "language", {"logits_scaling": 4.0}, "next"),
    ("gpt2", "language", {}, "next"),
]


def mixture(values: torch.Tensor) -> torch.Tensor:
    """All outputs with weights of both signs."""
    weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1))
    return (values * weights).sum() / len(values)


def padded_truth_at(model: Any, positions: list[list[tuple[int, ...]]]) -> tuple[torch.Tensor, torch.Tensor, Gradient]:
    """Outputs, their mixture and its gradient by transformers alone: all sequences in one padded batch."""
    batch = pad([sequence for group in GROUPS for sequence in group], 0)
    logits = model(**model_inputs(model, batch)).logits
    values = torch.cat([logits[i, list(own)] for i, own in enumerate(chain(*positions))])
    loss = mixture(values)
    loss.backward()
    return values.detach(), loss.detach(), taken_gradient(model)


def engine_at(
    engine: Engine, positions: list[list[tuple[int, ...]]], wrapper: Any = None
) -> tuple[torch.Tensor, torch.Tensor, Gradient]:
    """The same through the engine's parts."""
    starts = list(accumulate((sum(map(len, of_group)) for of_group in positions), initial=0))
    places, parts = [], []
    for part in engine.planner.parts(GROUPS, positions):
        numbers = [number for g in part.groups for number in range(starts[g], starts[g + 1])]
        for forward in part.forwards:
            places += [numbers[i] for i in forward.indices]
            parts.append(engine.scores(forward, wrapper).view(len(forward.indices), -1))
    values = torch.cat(parts)[torch.tensor(places).argsort()]
    loss = mixture(values)
    loss.backward()
    return values.detach(), loss.detach(), taken_gradient(wrapper or engine.model)


@pytest.mark.parametrize(("family", "head", "changes", "way"), HEADS)
def test_outputs_and_gradients_at_tokens_equal_the_padded_forward(
    make_model, family: str, head: str, changes: dict[str, Any], way: str
) -> None:
    """Soft-capping at 0.5, and factors of 1/16 and 1/4 on the logits, are no rounding: they are really applied."""
    model, positions = make_model(family, head, **changes), POSITIONS[way]
    set_dropout_to_zero(model)
    truth = padded_truth_at(model, positions)
    assert truth[0].std() > 0.01  # else nothing would be compared
    for layout, budget in (("tree", BUDGET), ("tree", None), ("packed", BUDGET), ("padded", BUDGET)):
        assert_equal(engine_at(Engine(model, layout, budget), positions), truth, f"{layout} {budget}")


@pytest.mark.parametrize(("family", "labels"), [("gpt2", 1), ("gpt2", 3), ("bert", 1), ("bert", 3)])
def test_token_heads_of_encoders_are_read_in_padded_batches(make_model, family: str, labels: int) -> None:
    """GPT-2's token classifier has an encoder's head, and is taken for one."""
    model = make_model(family, "token", num_labels=labels)
    set_dropout_to_zero(model)
    for way in ("tokens", "steps"):
        truth = padded_truth_at(model, POSITIONS[way])
        assert_equal(engine_at(Engine(model, "padded", BUDGET), POSITIONS[way]), truth, way)


def test_a_read_out_moved_by_one_is_not_equal(make_model) -> None:
    """What the comparisons above would find."""
    model = make_model("llama", "token", num_labels=3)
    truth = padded_truth_at(model, POSITIONS["tokens"])
    moved = [[tuple(max(0, at - 1) for at in own) for own in of_group] for of_group in POSITIONS["tokens"]]
    found = engine_at(Engine(model, "tree", BUDGET), moved)
    read = zip(chain(*GROUPS), chain(*POSITIONS["tokens"]), strict=True)
    # [40, 40, ...]: a token repeated at the very beginning sees nothing else than the first.
    differ = torch.tensor([at > 0 and ids[at] != ids[at - 1] for ids, own in read for at in own])
    assert (found[0] - truth[0]).abs().amax(1)[differ].min() > 1e-3
    with pytest.raises(AssertionError):
        assert_equal(found, truth, "moved")


@pytest.mark.parametrize(("family", "head"), [("llama", "token"), ("llama", "language"), ("gpt2", "language")])
def test_the_last_layer_is_pruned_where_ends_alone_are_read(make_model, family: str, head: str) -> None:
    model = make_model(family, head)
    set_dropout_to_zero(model)
    ends = [[(len(s) - 1,) for s in group] for group in GROUPS]
    truth = padded_truth_at(model, ends)
    engine = Engine(model, "tree", BUDGET)
    assert getattr(model, _STATE).prunes == ("scattered" if family == "gpt2" else "rows")
    seen: list[tuple[int, int]] = []
    last = last_layer(model).mlp
    last.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    assert_equal(engine_at(engine, ends), truth, "ends")
    assert sum(seen) == sum(map(len, GROUPS))
    seen.clear()
    forward = engine.planner.parts(GROUPS[:1], [[(2, 5)]])[0].forwards[0]
    with torch.no_grad():
        engine.scores(forward)
    assert seen == [6]  # read before its end as well: the whole row


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
def test_token_heads_under_peft_and_gradient_checkpointing(make_model) -> None:
    model = make_model("qwen3", "token", num_labels=3)
    set_dropout_to_zero(model)
    options = peft.LoraConfig(task_type="TOKEN_CLS", r=2, target_modules=["q_proj", "v_proj", "up_proj"])
    wrapped = peft.get_peft_model(model, options)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    truth = padded_truth_at(wrapped, POSITIONS["steps"])
    engine = Engine(wrapped.get_base_model(), "tree", BUDGET)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    found = engine_at(engine, POSITIONS["steps"], wrapped)
    assert any("modules_to_save" in name for name in found[2])
    assert_equal(found, truth, "steps")


def test_a_language_model_that_cannot_be_asked_for_some_logits_is_refused(make_model, monkeypatch) -> None:
    """Its forward might change what the head gives, and nothing would show it where logits are small."""
    model = make_model("llama", "language")
    own = type(model).forward
    monkeypatch.setattr(type(model), "forward", lambda self, input_ids=None, **kwargs: own(self, input_ids, **kwargs))
    with pytest.raises(CheckpointError, match="cannot be asked for the logits of some tokens"):
        enable_packing(model)
    assert "forward" not in vars(model)


# -- what wraps a model ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gpt_oss", "deepseek_v3"])
def test_gradient_checkpointing(make_model, family: str, reentrant: bool) -> None:
    """Layers run again in the backward, with the plan; keys and values leave the last one with their graph.

    From transformers 5.23 on a layer's own ``forward`` checkpoints. Left by an exception, a reentrant checkpoint gives
    keys and values without a graph: right scores, and a gradient off by half, in silence.
    """
    model = make_model(family)
    set_dropout_to_zero(model)
    truth = padded_truth(model)
    engine = Engine(model, "tree", BUDGET)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    model.train()
    runs: list[object] = []
    attention = next(module for module in model.modules() if type(module).__name__.endswith("Attention"))
    attention.register_forward_pre_hook(lambda *_: runs.append(None))
    found = packed(model, engine)
    assert len(runs) == 2 * len(list(forwards_of(engine)))  # it was really checkpointed
    assert_equal(found, truth, "checkpointed")
    # A plain call between two packed ones switches the attention and back.
    assert_equal(padded_truth(model), truth, "padded, checkpointed")
    assert_equal(packed(model, engine), truth, "checkpointed again")


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_peft_wrapper(make_model, family: str) -> None:
    model = make_model(family)
    set_dropout_to_zero(model)
    options = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear", fan_in_fan_out=family == "gpt2")
    wrapped = peft.get_peft_model(model, options)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:  # starts at 0, so that adapters would do nothing
                parameter.normal_(std=0.1)
    truth = padded_truth(wrapped)
    assert any("lora_A" in name for name in truth[2])
    for layout in ("tree", "packed"):
        assert_equal(packed(wrapped, Engine(wrapped.get_base_model(), layout, BUDGET)), truth, layout)
    assert_equal(padded_truth(wrapped), truth, "padded")


def test_autocast_stays_close(make_model) -> None:
    """The norms of queries and keys give float32 beside bfloat16 values, which the attention must take together."""
    for family in ("qwen3", "gpt_oss", "gpt2"):
        model = make_model(family)
        truth = padded_truth(model)
        with torch.autocast("cpu", torch.bfloat16):
            scores, _, gradient = packed(model, Engine(model, "tree", BUDGET))
        assert (scores - truth[0]).abs().max() < 0.05
        assert all(value.dtype == torch.float32 and value.isfinite().all() for value in gradient.values())


def test_copies_are_independent(make_model) -> None:
    """Reference models are deep copies; one that called its original's forward would follow its training."""
    model = make_model("gpt_oss")
    engine = Engine(model, "tree", BUDGET)
    truth = packed(model, engine)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    disable_packing(model)
    assert_equal(packed(twin, Engine(twin, "tree", BUDGET)), truth, "copy")
    assert_equal(padded_truth(twin), truth, "copy, padded")
    assert ATTENTION_NAME not in (model.config._attn_implementation, twin.config._attn_implementation)


# -- the model stays transformers' own -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_model_stays_as_it_was(make_model, tmp_path, family: str) -> None:
    model = make_model(family)
    names = list(model.state_dict())
    own = model.config._attn_implementation
    model.save_pretrained(tmp_path / "before")
    batch = model_inputs(model, pad([[5, 6, 7, 8], [5, 6]], 0))
    with torch.no_grad():
        expected = model(**batch).logits
    engine = Engine(model, "tree", BUDGET)
    enable_packing(model)  # twice changes nothing
    assert model.config._attn_implementation == own
    packed(model, engine)
    model.save_pretrained(tmp_path / "enabled")  # while our attention is in use
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, expected)
        assert torch.equal(model(batch["input_ids"], attention_mask=batch["attention_mask"])[0], expected)
    assert list(model.state_dict()) == names
    packed(model, engine)
    disable_packing(model)
    disable_packing(model)
    assert model.config._attn_implementation == own
    assert "forward" not in vars(model)
    assert "forward" not in vars(last_layer(model))
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, expected)
    model.save_pretrained(tmp_path / "after")
    for folder in ("enabled", "after"):
        for file in ("config.json", "model.safetensors"):
            assert (tmp_path / folder / file).read_bytes() == (tmp_path / "before" / file).read_bytes(), folder
    assert "rewardlab" not in json.dumps(json.loads((tmp_path / "enabled" / "config.json").read_text()))


@pytest.mark.parametrize("family", ["nemotron", "stablelm"])
def test_a_model_that_does_not_hand_on_the_plan_is_refused_and_left_alone(make_model, family: str) -> None:
    model = make_model(family).train()
    with pytest.raises(CheckpointError, match="did not hand on the packing plan") as raised:
        enable_packing(model)
    assert raised.value.hint == "use the padded layout"
    assert model.training
    assert "forward" not in vars(model)
    assert model.config._attn_implementation == "sdpa"


def test_training_mode_and_gradients_survive_enabling(make_model) -> None:
    model = make_model("llama").train()
    enable_packing(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_forward_that_others_have_replaced_is_not_pushed_aside(make_model) -> None:
    model = make_model("llama")
    own = model.forward
    calls = []

    def theirs(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return own(*args, **kwargs)

    model.forward = theirs
    with pytest.raises(CheckpointError, match="has been replaced"):
        enable_packing(model)
    assert model.forward is theirs
    del model.forward
    enable_packing(model)
    packing = model.forward
    model.forward = lambda *args, **kwargs: packing(*args, **kwargs)  # as accelerate wraps one for autocast
    outer = model.forward
    disable_packing(model)
    assert model.forward is outer


def test_a_model_in_bfloat16_is_pruned_too(make_model) -> None:
    model = make_model("llama").to(torch.bfloat16)
    enable_packing(model)
    assert getattr(model, _STATE).prunes == "rows"
