"""A short GRPO run of a small policy with TRL, watched: what it says on held-out prompts, and how far it has moved.

    run = run_grpo("policy", [reward_function], prompts, "out", held_out=held_out, steps=100, beta=0.05)
    [(measure.step, measure.kl) for measure in run.measures]

A thin wrapper around TRL's ``GRPOTrainer`` with settings that suit a decoder of a few hundred thousand weights on a
CPU. It knows neither the truth nor what the rewards are made of: callers judge the texts of each measure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.modeling.loading import quiet_transformers
from rewardlab.studies.policy import Sample, load_policy_model, log_ratios, sample
from rewardlab.types import Text

if TYPE_CHECKING:
    from rewardlab.rewards.kl import AdaptiveKL, FixedKL

MEASURE_SEED = 1_000_003
"""Seed of the draws on held-out prompts, the same at every step: what differs between two steps is the policy."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What a policy says on the held-out prompts, and how far it is from the reference.

    Attributes:
        step: Optimiser steps taken.
        beta: The KL coefficient then.
        samples: Completions drawn for each held-out prompt at temperature 1.
        log_ratios: log pi - log pi_ref of each of them, nats, summed over its tokens.
    """

    step: int
    beta: float
    samples: tuple[tuple[Sample, ...], ...]
    log_ratios: tuple[tuple[float, ...], ...]

    @property
    def kl(self) -> float:
        """KL(pi || pi_ref) of whole completions, nats: the mean log-ratio over the samples (the estimator k1)."""
        return fmean(value for own in self.log_ratios for value in own)


@dataclass(frozen=True, slots=True)
class GrpoRun:
    """A finished run.

    Attributes:
        folder: The trained policy, as any Hugging Face model is saved.
        history: What TRL logged, a dict for each step.
        measures: At step 0, every so many steps, and at the end.
    """

    folder: Path
    history: tuple[dict[str, float], ...]
    measures: tuple[Measure, ...]


def run_grpo(
    policy_folder: str | Path,
    reward_funcs: Callable[..., Any] | Sequence[Callable[..., Any]],
    prompts: Sequence[Text],
    output: str | Path,
    *,
    held_out: Sequence[Text],
    steps: int,
    beta: float,
    controller: AdaptiveKL | FixedKL | None = None,
    seed: int = 0,
    learning_rate: float = 5e-4,
    num_generations: int = 8,
    prompts_per_step: int = 8,
    max_completion_length: int = 48,
    scale_rewards: str = "group",
    num_iterations: int = 1,
    every: int = 25,
    samples_per_prompt: int = 4,
    on_measure: Callable[[Measure], None] = lambda _: None,
) -> GrpoRun:
    """Train a policy by GRPO on what the reward functions say, and measure it on held-out prompts on the way.

    Args:
        policy_folder: From :func:`~rewardlab.studies.policy.build_policy`; also the reference of the KL.
        reward_funcs: As TRL's ``reward_funcs``: they get conversational prompts and completions.
        prompts: What is trained on, text or messages.
        output: Where the trained policy goes.
        held_out: What is measured on.
        steps: Optimiser steps.
        beta: KL coefficient; 0 loads no reference into the trainer. With a ``controller`` its value is taken.
        controller: Adapts ``beta`` by :func:`rewardlab.adapters.trl.use_kl_control`.
        seed: Seed of the order of prompts and of what is drawn.
        learning_rate: Constant, after ten steps of warm-up.
        num_generations: Completions of each prompt.
        prompts_per_step: Prompts of each step.
        max_completion_length: Longest completion in tokens, in training and in measuring.
        scale_rewards: As TRL's: ``"group"`` (where the scale of the rewards cancels), ``"batch"`` or ``"none"``.
        num_iterations: Passes over each step's completions.
        every: Steps between two measures.
        samples_per_prompt: Completions of each held-out prompt in a measure.
        on_measure: Called with each measure.

    Returns:
        History, measures and the folder of the trained policy.

    Raises:
        MissingDependencyError: TRL is not installed.
        ConfigError: There are fewer prompts than one step takes, or none to measure on.
    """
    try:
        from datasets import Dataset
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise MissingDependencyError(
            f"GRPO runs need TRL, which cannot be imported: {error}", hint='pip install "rewardlab[rl]"'
        ) from error
    if len(prompts) < prompts_per_step or not held_out:
        raise ConfigError(
            f"{len(prompts)} prompts to train on and {len(held_out)} held-out ones, expected at least "
            f"{prompts_per_step} and 1",
            hint="give more prompts, or lower prompts_per_step",
        )
    model, tokenizer = load_policy_model(policy_folder)
    reference, _ = load_policy_model(policy_folder)
    arguments = GRPOConfig(
        output_dir=str(output),
        max_steps=steps,
        beta=beta if controller is None else controller.value,
        seed=seed,
        learning_rate=learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=10,
        per_device_train_batch_size=prompts_per_step * num_generations,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        num_generations=num_generations,
        max_completion_length=max_completion_length,
        scale_rewards=scale_rewards,
        num_iterations=num_iterations,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    with warnings.catch_warnings(), quiet_transformers():
        # TRL 1.16 asks transformers 5.23 by a name that it has since renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=list(reward_funcs) if isinstance(reward_funcs, Sequence) else reward_funcs,
            args=arguments,
            train_dataset=Dataset.from_list([{"prompt": _messages(prompt)} for prompt in prompts]),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)  # it prints each log to stdout
        if controller is not None:
            from rewardlab.adapters.trl import use_kl_control

            use_kl_control(trainer, controller, unit="sequence")
        watch = _Watch(trainer, reference, tokenizer, held_out, every, samples_per_prompt, on_measure)
        trainer.add_callback(watch)
        trainer.train()
        trainer.save_model(str(output))
    history = tuple(entry for entry in trainer.state.log_history if "reward" in entry)
    return GrpoRun(Path(output), history, tuple(watch.measures))


class _Watch(TrainerCallback):
    """Measures the policy at the start, every so many steps and at the end."""

    def __init__(
        self,
        trainer: Any,
        reference: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Text],
        every: int,
        samples_per_prompt: int,
        on_measure: Callable[[Measure], None],
    ) -> None:
        self.trainer, self.reference, self.tokenizer, self.prompts = trainer, reference, tokenizer, prompts
        self.every, self.samples_per_prompt, self.on_measure = every, samples_per_prompt, on_measure
        self.measures: list[Measure] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._measure(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % self.every == 0 or state.global_step == state.max_steps:
            self._measure(state.global_step)

    def _measure(self, step: int) -> None:
        model = self.trainer.model
        was_training = model.training
        model.eval()
        samples = sample(
            model,
            self.tokenizer,
            self.prompts,
            n=self.samples_per_prompt,
            seed=MEASURE_SEED,
            max_new_tokens=self.trainer.args.max_completion_length,
        )
        ratios = log_ratios(self.reference, self.tokenizer, self.prompts, samples)
        model.train(was_training)
        measure = Measure(step, float(self.trainer.beta), tuple(map(tuple, samples)), tuple(map(tuple, ratios)))
        self.measures.append(measure)
        self.on_measure(measure)


def _messages(prompt: Text) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
