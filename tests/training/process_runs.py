"""What each process of ``test_step_trainer.py`` does: gradients of one step by hand, then whole runs.

``process_runs.py BASE_MODEL FOLDER``, where there are several with a launcher's environment; results go to the folder.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.preparing import LoraOptions, prepare_for_training
from rewardlab.objectives import OBJECTIVES
from rewardlab.studies.arithmetic import generate_solutions
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.batches import GroupCollator
from rewardlab.training.trainer import RewardTrainer
from rewardlab.types import Pair, PromptGroup, Ranking

SHARDS = (140, 70, 90)
ACCUMULATION = 3
GLOBAL_BATCH = 6
BUDGET = 500  # tokens: one group needs several forwards, others share one
SOLUTIONS = generate_solutions(0, sum(SHARDS), num_solutions=2)
MANY_SOLUTIONS = generate_solutions(1, 1, num_solutions=40)[0]

STEPS: dict[str, dict[str, Any]] = {name: {"objective": name} for name in sorted(OBJECTIVES)} | {
    "without centering": {"center_rewards_coefficient": 0.0},
    "three heads": {"ensemble_heads": 3},
    "adapters": {"mode": "lora"},
    "padded": {"engine": "padded"},
}
RUNS: dict[str, dict[str, Any]] = {
    "full": {},
    "davidson": {"objective": "davidson"},
    "head alone": {"mode": "head_only", "ensemble_heads": 3},
}


def groups_for(objective: str, count: int) -> list[PromptGroup]:
    """Groups with what an objective learns from, weights and margins among it; the fifth is over the token budget."""
    if OBJECTIVES[objective].kind != "sequence":
        return [*SOLUTIONS[:4], MANY_SOLUTIONS, *SOLUTIONS[5:count]]
    groups = []
    for i, group in enumerate(SOLUTIONS[:count]):
        answers = [*group.completions, f"{i} it is", f"about {i + 1}"][: 3 + (i % 2)]
        if i == 4:
            answers = [f"answer {k} of very many: {k * k}" for k in range(40)]
        given: dict[str, Any] = {}
        if objective == "regression":
            given["ratings"] = [float((i * k) % 7) for k in range(len(answers))]
        elif objective == "plackett_luce":
            given["rankings"] = [Ranking((0, 1, 2), (1, 0, 1 + i % 2))]
        else:
            given["pairs"] = [
                Pair(0, 1, strength=i % 3 + 0.5, weight=1 + i % 5 / 4, margin=0.1 * (i % 4), tie=i % 7 == 0),
                Pair(1, 2, strength=1.0, p_chosen=0.75),
            ]
        groups.append(PromptGroup(group.prompt, answers, **given))
    return groups


def trainer_for(base: str, folder: Path, groups: list[PromptGroup], options: dict[str, Any]) -> RewardTrainer:
    """A trainer of one case."""
    options = dict(options)
    mode = options.pop("mode", "full")
    arguments = RewardArguments(
        str(folder), max_length=128, tokens_per_batch=BUDGET, use_cpu=True, seed=0, save_strategy="no",
        disable_tqdm=True, report_to="none", max_grad_norm=1e9, max_group_size=1, lr_scheduler_type="constant",
        **{"learning_rate": 1e-3, **options},
    )  # fmt: skip
    prepared = prepare_for_training(
        base, seed=0, mode=mode, lora=LoraOptions(rank=4) if mode == "lora" else None,
        read_out=arguments.read_out, ensemble_heads=arguments.ensemble_heads,
    )  # fmt: skip
    return RewardTrainer(prepared.model, arguments, groups, groups[:9], processing_class=prepared.tokenizer)


class ByHand(GroupCollator):
    """Whose each group is was said before."""

    owners: dict[int, int]
    rank: int

    def own_share(self, examples: Sequence[EncodedGroup]) -> Sequence[int]:
        return [place for place, example in enumerate(examples) if self.owners[id(example)] == self.rank]


def gradients(base: str, folder: Path, options: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of one optimiser step over shards of 140, 70 and 90 groups, three micro-batches each; computed in float64."""
    groups = groups_for(options.get("objective", "bradley_terry"), sum(SHARDS))
    trainer = trainer_for(base, folder, groups, {"engine": "tree", **options})
    trainer._look_at_model()
    rank, ranks = trainer.accelerator.process_index, trainer.accelerator.num_processes
    owner_of_shard = {1: (0, 0, 0), 2: (0, 1, 1), 3: (0, 1, 2)}[ranks]
    examples = trainer.train_data.examples
    assert len(examples) == sum(SHARDS)
    collator = ByHand(trainer._collator.planner, trainer._in_steps)
    collator.rank, collator.owners = rank, {}
    micro_batches: list[list[EncodedGroup]] = [[] for _ in range(ACCUMULATION)]
    start = 0
    for shard, count in enumerate(SHARDS):
        for place, example in enumerate(examples[start : start + count]):
            collator.owners[id(example)] = owner_of_shard[shard]
            micro_batches[place % ACCUMULATION].append(example)
        start += count
    batches = [collator(examples) for examples in micro_batches]
    needs_two_passes = any(len(part.forwards) > 1 for batch in batches for part in batch["parts"])
    assert needs_two_passes or rank > 0  # the fifth group is of the first shard
    trainer.model.double()
    trainer.objective.double()
    model = trainer.accelerator.prepare(trainer.model)
    prepared, units = trainer.get_batch_samples(iter(batches), ACCUMULATION, trainer.args.device)
    for number, batch in enumerate(prepared):
        with nullcontext() if number == ACCUMULATION - 1 else trainer.accelerator.no_sync(model):
            trainer.training_step(model, batch, units)
    named = [*trainer.model.named_parameters(), *trainer.objective.named_parameters()]
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def run(base: str, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Two epochs of 40 groups in global batches of 6, two of them a step: the last of an epoch has 4 groups, alone."""
    groups = groups_for(options.get("objective", "bradley_terry"), 40)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = trainer_for(
        base, folder, groups,
        {"per_device_train_batch_size": GLOBAL_BATCH // ranks, "gradient_accumulation_steps": 2, "logging_steps": 1,
         "num_train_epochs": 2, "eval_strategy": "epoch", **options},
    )  # fmt: skip
    used: Counter[str] = Counter()
    step = trainer.training_step

    def counted(model: Any, inputs: dict[str, Any], units: Any = None) -> torch.Tensor:
        used.update(example.group.prompt_key for example in inputs.get("examples", ()))
        return step(model, inputs, units)

    trainer.training_step = counted  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    of_all = trainer._ranks.gather(used)
    named = [*trainer.model.named_parameters(), *trainer.objective.named_parameters()]
    return {
        "weights": {name: parameter.detach().clone() for name, parameter in named},
        "log": trainer.state.log_history,
        "used": sum(of_all, Counter()),
        "groups": [example.group.prompt_key for example in trainer.train_data.examples],
        "shares": [sum(one.values()) for one in of_all],
    }


def main(base: str, folder: Path) -> None:
    """All cases, one after the other, on this rank; the first writes what it found."""
    results: dict[str, Any] = {"gradients": {}, "runs": {}}
    for name, options in STEPS.items():
        results["gradients"][name] = gradients(base, folder, options)
    for name, options in RUNS.items():
        results["runs"][name] = run(base, folder, options)
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        torch.save(results, folder / "results.pt")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
