"""Every objective through the real trainer: what it computes, how it is reduced, what is saved, what resumes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from rewardlab.errors import ConfigError, ContractError
from rewardlab.modeling.contract import FILE_NAME, load_contract
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.modeling.verification import verify_checkpoint
from rewardlab.objectives import OBJECTIVES
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.arithmetic import generate_solutions
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.run import train_reward_model
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup, Ranking

SOLUTIONS = generate_solutions(0, 8, num_solutions=3)
FAST: dict[str, Any] = {
    "max_length": 128,
    "learning_rate": 1e-3,
    "disable_tqdm": True,
    "save_strategy": "no",
    "seed": 0,
    "use_cpu": True,
    "report_to": "none",
    "lr_scheduler_type": "constant",
}


def groups_for(objective: str) -> list[PromptGroup]:
    """Eight prompts with three completions each, with what the objective learns from; none like the other."""
    if OBJECTIVES[objective].kind != "sequence":
        return SOLUTIONS
    groups = []
    for i, group in enumerate(SOLUTIONS):
        given: dict[str, Any] = {"ratings": [i, 2.5 * i - 3, 1]} if objective == "regression" else {}
        if objective == "plackett_luce":
            given["rankings"] = [
                [Ranking((0, 1, 2), (1, 0, 1 + i % 2)), Ranking((2, 0, 1), (0, None, None))][i % 3 == 0]
            ]
        pairs = [Pair(0, 1, strength=i / 2, weight=1 + i / 4), Pair(1, 2, margin=0.5, strength=1.0, p_chosen=0.75)]
        given.setdefault("pairs", [*pairs, Pair(0, 2, tie=True)] if i % 2 else pairs)
        groups.append(PromptGroup(group.prompt, group.completions, **given))
    return groups


def trainer_for(base: Path, folder: Path, objective: str, **options: Any) -> RewardTrainer:
    arguments = RewardArguments(str(folder), objective=objective, **{**FAST, **options})
    prepared = prepare_for_training(base, seed=0, read_out=arguments.read_out)
    return RewardTrainer(prepared.model, arguments, groups_for(objective), processing_class=prepared.tokenizer)


def first_gradient(base: Path, folder: Path, objective: str, **options: Any) -> dict[str, torch.Tensor]:
    """Gradient of the first optimiser step, of the model and of what the objective learns itself."""
    found: dict[str, torch.Tensor] = {}
    trainer = trainer_for(base, folder, objective, max_grad_norm=1e9, max_steps=1, **options)

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            for module in (model, trainer.objective):
                found.update({n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    trainer.add_callback(Catch())
    trainer.train()
    return found


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_the_gradient_depends_on_neither_layout_budget_nor_accumulation(
    base_model: Path, tmp_path: Path, objective: str
) -> None:
    """One padded batch of eight, against trees in micro-batches of 3, 3, 2 with groups cut over the budget."""
    one = first_gradient(base_model, tmp_path, objective, engine="padded", tokens_per_batch=10**6)
    options = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}
    two = first_gradient(base_model, tmp_path, objective, engine="tree", tokens_per_batch=70, **options)
    assert one.keys() == two.keys()
    assert ("log_nu" in one) == (objective == "davidson")
    difference = math.sqrt(sum(float(torch.sum((two[n] - g) ** 2)) for n, g in one.items()))
    assert difference <= 2e-5 * math.sqrt(sum(float(torch.sum(g**2)) for g in one.values()))


def test_k_completions_cost_one_forward_of_unique_tokens(base_model: Path, tmp_path: Path) -> None:
    """Five ranked completions: the prompt once and each completion once, not ten pairs of two."""
    prompt = "word " * 20
    group = PromptGroup(prompt, list("abcde"), rankings=[Ranking((0, 1, 2, 3, 4), (0, 1, 2, 3, 4))])
    arguments = RewardArguments(str(tmp_path), objective="plackett_luce", **FAST)
    prepared = prepare_for_training(base_model, seed=0)
    trainer = RewardTrainer(prepared.model, arguments, [group], processing_class=prepared.tokenizer)
    engine = trainer._engine_of_run()
    assert engine.layout == "tree"
    (example,) = trainer.train_data.examples
    unique = example.prefix_length + sum(length - example.prefix_length for length in example.lengths)
    (part,) = engine.planner.parts([example.sequences])
    assert sum(forward.num_tokens for forward in part.forwards) == unique
    of_pairs = sum(2 * length - example.prefix_length for length in example.lengths[:1]) * 10
    assert unique < 0.2 * of_pairs


def test_what_davidson_learns_is_resumed_and_stored(base_model: Path, tmp_path: Path) -> None:
    """A run cut after 2 of 4 steps and resumed ends at the parameter of one that was never cut."""
    options = {"per_device_train_batch_size": 2, "save_strategy": "steps", "save_steps": 2, "learning_rate": 1e-3}

    def run(folder: Path, steps: int, resume: str | None = None) -> RewardTrainer:
        trainer = trainer_for(base_model, folder, "davidson", max_steps=steps, **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run(tmp_path / "whole", 4)
    run(tmp_path / "cut", 2)
    resumed = run(tmp_path / "cut", 4, str(tmp_path / "cut" / "checkpoint-2"))
    assert abs(whole.objective.log_nu.item()) > 1e-3
    assert resumed.objective.log_nu.item() == pytest.approx(whole.objective.log_nu.item(), abs=1e-7)
    assert resumed.objective_record()["log_nu"] == resumed.objective.log_nu.item()


def test_an_overflow_of_float16_does_not_stay_in_an_objectives_gradient(base_model: Path, tmp_path: Path) -> None:
    """Two steps, of which a scaler would skip the first: its gradient must not be in the second's."""
    trainer = trainer_for(base_model, tmp_path, "davidson", max_steps=2, per_device_train_batch_size=4)
    optimizer, steps = trainer.create_optimizer(), list[float]()
    own = optimizer.step

    def step(self: Any, *args: Any) -> None:  # put in place of the instance's, as accelerate does
        if not steps:
            trainer.objective.log_nu.grad = torch.tensor(math.inf)
        steps.append(float(trainer.objective.log_nu.grad))
        if len(steps) > 1:
            own()

    optimizer.step = MethodType(step, optimizer)
    trainer.train()
    assert steps[0] == math.inf
    assert math.isfinite(steps[1])
    assert trainer.objective.nu != 1.0


@pytest.mark.parametrize(
    ("objective", "mode"),
    [("outcome", "full"), ("process", "full"), ("process", "lora"), ("outcome", "lora"), ("process", "head_only")],
)
def test_a_model_of_each_kind_is_saved_verified_and_loaded(
    base_model: Path, tmp_path: Path, objective: str, mode: Any
) -> None:
    result = train_reward_model(
        model=base_model,
        train_groups=SOLUTIONS,
        eval_groups=SOLUTIONS[:3],
        output_dir=tmp_path / "rm",
        mode=mode,
        dtype="float32",
        overrides={"objective": objective, **FAST, "max_steps": 2},
    )
    checks = {check.name for check in result.saved.verification.checks}
    assert {"padded on the left", "packed, shared prefixes computed once", "through plain transformers"} <= checks
    contract = load_contract(tmp_path / "rm")
    assert contract is not None
    assert contract.architecture == "Qwen3ForTokenClassification"
    scorer = Scorer.from_pretrained(tmp_path / "rm")
    assert scorer.read_out == contract.head
    assert scorer.layout.layout == "tree"
    scores = scorer.score_groups(SOLUTIONS[:2])
    if objective == "outcome":
        assert contract.head.aggregation == "mean"
        for scores_of, logits_of in zip(scores, scorer.token_logits(SOLUTIONS[:2]), strict=True):
            for score, logits in zip(scores_of, logits_of, strict=True):
                mean = torch.sigmoid(torch.tensor(logits, dtype=torch.float64)).mean()
                assert 1 / (1 + math.exp(-score)) == pytest.approx(mean.item(), abs=1e-6)
    else:
        assert (contract.head.separator, contract.head.num_classes) == ("<|step|>", 3)
        for group, scores_of, steps_of in zip(SOLUTIONS, scores, scorer.step_scores(SOLUTIONS[:2]), strict=False):
            assert [len(steps) for steps in steps_of] == [len(steps) for steps in group.steps]
            for score, steps in zip(scores_of, steps_of, strict=True):
                assert 1 / (1 + math.exp(-score)) == pytest.approx(min(steps), abs=1e-6)


def test_aggregation_can_be_chosen_when_scoring(base_model: Path, tmp_path: Path) -> None:
    """In order product, min, mean; and last is the last: of the same model and the same steps."""
    train_reward_model(
        model=base_model,
        train_groups=SOLUTIONS,
        output_dir=tmp_path / "rm",
        dtype="float32",
        overrides={"objective": "process", **FAST, "max_steps": 1},
    )
    found = {
        how: Scorer.from_pretrained(tmp_path / "rm", aggregation=how).score_groups(SOLUTIONS[:4])
        for how in ("product", "min", "mean", "last")
    }
    last = [
        [steps[-1] for steps in some] for some in Scorer.from_pretrained(tmp_path / "rm").step_scores(SOLUTIONS[:4])
    ]
    columns = ([score for some in values for score in some] for values in (*found.values(), last))
    for product, least, mean, end, expected in zip(*columns, strict=True):
        assert product <= least + 1e-9
        assert least <= mean + 1e-9
        assert 1 / (1 + math.exp(-end)) == pytest.approx(expected)


def test_another_head_is_noticed(base_model: Path, tmp_path: Path) -> None:
    """By --resume, and by the contract's probes where they have other steps: as a difference, not as a crash."""

    def run(resume: bool, **changed: Any) -> None:
        train_reward_model(
            model=base_model,
            train_groups=SOLUTIONS,
            output_dir=tmp_path / "rm",
            dtype="float32",
            overrides={"objective": "process", **FAST, "max_steps": 1, **changed},
            resume=resume,
        )

    run(resume=False)
    with pytest.raises(ConfigError, match="head was"):
        run(resume=True, step_separator="<|end|>")
    path = tmp_path / "rm" / FILE_NAME
    record = json.loads(path.read_text())
    record["head"]["split_at"] = None
    path.write_text(json.dumps(record))
    assert not verify_checkpoint(tmp_path / "rm").ok
    with pytest.raises(ContractError, match="text gives the stored ids"):
        Scorer.from_pretrained(tmp_path / "rm")


def test_an_encoder_can_be_a_process_model(minilm_path: Path, tmp_path: Path) -> None:
    """Its steps see what follows them, so nothing is shared: padded, with its separator in a WordPiece vocabulary."""
    result = train_reward_model(
        model=minilm_path,
        train_groups=SOLUTIONS,
        output_dir=tmp_path / "rm",
        dtype="float32",
        overrides={"objective": "process", **FAST, "max_steps": 1},
    )
    assert result.saved.verification.ok
    scorer = Scorer.from_pretrained(tmp_path / "rm")
    assert scorer.layout.layout == "padded"
    assert all(map(math.isfinite, scorer.score_groups(SOLUTIONS[:1])[0]))
