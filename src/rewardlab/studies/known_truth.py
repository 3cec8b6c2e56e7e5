"""Experiments on generated data whose truth is known: does each objective find it, through the real trainer?

Each experiment generates its data from a seed, trains a small decoder from nothing as any user would
(:func:`~rewardlab.training.run.train_reward_model`), loads the checkpoint and compares what it gives on held-out
prompts with the truth, beside what is had without a model: the majority, the length, a guess.

The worlds are :mod:`rewardlab.studies.world`'s and :mod:`rewardlab.studies.arithmetic`'s; the measures are
:mod:`rewardlab.metrics`'s.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.outcomes import evaluate_outcomes
from rewardlab.metrics.rankings import evaluate_rankings
from rewardlab.metrics.ratings import evaluate_ratings
from rewardlab.metrics.steps import best_threshold, evaluate_steps
from rewardlab.modeling.aggregation import AGGREGATIONS, aggregate
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.arithmetic import generate_solutions
from rewardlab.studies.demo import SPECIAL_TOKENS, DemoSize, build_base_model
from rewardlab.studies.world import (
    generate_rankings,
    generate_ties,
    sample_comparisons,
    sample_strengths,
    true_utility,
)
from rewardlab.training.run import train_reward_model
from rewardlab.types import PromptGroup, Ranking

CLOCK = 5
"""Numbers of the arithmetic chains: 200 different equations, few enough to be learned from a few thousand chains."""


@dataclass(frozen=True, slots=True)
class StudySize:
    """How large an experiment is.

    Attributes:
        num_train: Training prompts.
        num_held_out: Held-out prompts.
        batch_size: Prompts per step.
        learning_rate: Peak learning rate.
    """

    num_train: int
    num_held_out: int
    batch_size: int = 16
    learning_rate: float = 3e-3


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure of one model.

    Attributes:
        measured: The measure on held-out prompts, with its 95 % interval over prompts.
        baselines: What is reached without a model, by name.
    """

    measured: Interval
    baselines: Mapping[str, float]

    @property
    def above_baselines(self) -> bool:
        """Whether the lower bound is above every baseline."""
        return self.measured.low is not None and self.measured.low > max(self.baselines.values())


@dataclass(frozen=True, slots=True)
class Recovery:
    """A parameter of the world that is learned beside the model.

    Attributes:
        truth: What the data were drawn with.
        learned: What the checkpoint's contract holds.
        from_shares: What the share of ties would give if all completions were taken to be equally good.
        correlation: Pearson correlation, within held-out prompts, of the scores with the true utilities.
    """

    truth: float
    learned: float
    from_shares: float
    correlation: float

    @property
    def error(self) -> float:
        """Relative error of what was learned."""
        return abs(self.learned / self.truth - 1)


def rankings(seed: int, size: StudySize, objective: str, *, tie_width: float = 0.25) -> dict[str, Finding]:
    """Rank correlation, prompt by prompt, of the scores with the true utility, learned from noisy ranked lists.

    Args:
        seed: Seed of data, model and training.
        size: How large.
        objective: ``"plackett_luce"``, ``"grouped_pairs"`` or another that learns from rankings.
        tie_width: Of :func:`~rewardlab.studies.world.sample_ranks`.

    Returns:
        Kendall's tau-b and Spearman's correlation, with those of the length (of shortness they are the negatives).
    """
    world = generate_rankings(seed, n_train=size.num_train, n_held_out=size.num_held_out, tie_width=tie_width)
    scorer = _train(seed, size, world.train, {"objective": objective})
    truth = [replace(group, rankings=(_true_ranking(group),), pairs=()) for group in world.held_out]
    found = evaluate_rankings(truth, scorer.score_groups(world.held_out), seed=seed)
    by_length = evaluate_rankings(truth, [[float(len(str(c))) for c in g.completions] for g in truth], seed=seed)
    return {
        "kendall_tau": Finding(found.kendall_tau, _either_way("length", by_length.kendall_tau.value)),
        "spearman": Finding(found.spearman, _either_way("length", by_length.spearman.value)),
    }


def outcomes(seed: int, size: StudySize) -> dict[str, Finding]:
    """Whether a solution's final answer is right, learned from outcomes alone.

    Returns:
        Accuracy, AUC, and the accuracy of the best of 4 by each aggregation.
    """
    train, held_out = _chains(seed, size, p_wrong=0.5)
    scorer = _train(seed, size, train, {"objective": "outcome"}, words=True)
    logits = scorer.token_logits(held_out)
    found = {
        how: evaluate_outcomes(
            held_out,
            [[aggregate(torch.tensor(one), how) for one in of_group] for of_group in logits],
            aggregation=how,
            seed=seed,
        )
        for how in AGGREGATIONS
    }
    findings = {}
    for how, result in found.items():
        best = result.best_of
        assert result.auc is not None
        assert result.longer_auc is not None
        assert best is not None
        lengths = {"longest": best.longest.value, "shortest": best.shortest.value}
        findings[f"accuracy_{how}"] = Finding(result.accuracy, {"majority": result.majority.value})
        findings[f"auc_{how}"] = Finding(result.auc, _either_way("length", result.longer_auc.value, middle=0.5))
        findings[f"best_of_4_{how}"] = Finding(best.accuracy, {"random": best.random.value, **lengths})
    return findings


def steps(seed: int, size: StudySize) -> dict[str, Finding]:
    """Where a solution goes wrong, learned from judged steps of three classes.

    A step counts as right where P(correct) + P(neutral) is above 1/2: a step that says nothing is no error.

    Returns:
        ProcessBench's accuracy and F1 of the first error, and the F1 of the steps that are errors. The length baselines
        take the longer, or the shorter, step for wrong, at the threshold that is best on these very steps.
    """
    train, held_out = _chains(seed, size, p_wrong=0.8)
    options = {"objective": "process", "neutral_is_correct": True}
    scorer = _train(seed, size, train, options, words=True)
    found = evaluate_steps(held_out, scorer.step_scores(held_out), seed=seed)
    first = found.first_error
    assert first is not None
    assert first.f1 is not None
    assert first.guess_f1 is not None
    assert found.f1_incorrect is not None
    assert found.macro_f1 is not None
    assert found.majority_macro_f1 is not None
    of_first, of_f1, of_macro = ({} for _ in range(3))
    for name, sign in (("longer", -1), ("shorter", 1)):
        scores = step_scores_by_length(held_out, sign)
        by_length = evaluate_steps(held_out, scores, threshold=best_threshold(held_out, scores), seed=seed)
        assert by_length.first_error is not None
        assert by_length.first_error.f1 is not None
        assert by_length.macro_f1 is not None
        of_first[name] = by_length.first_error.accuracy.value
        of_f1[name] = by_length.first_error.f1.value
        of_macro[name] = by_length.macro_f1.value
    return {
        "first_error_accuracy": Finding(first.accuracy, {"majority": first.majority.value, **of_first}),
        "first_error_f1": Finding(first.f1, {"guess": first.guess_f1.value, **of_f1}),
        "step_macro_f1": Finding(found.macro_f1, {"majority": found.majority_macro_f1, **of_macro}),
    }


def ties(seed: int, size: StudySize, nu: float, *, on: Literal["chains", "world"]) -> Recovery:
    """Davidson's tie parameter, learned from comparisons of a prompt's completions, some of which tie.

    What a model does not know of the utilities is noise to it, which makes strict outcomes likelier than ties, hence nu
    smaller; a model that knows nothing has ``from_shares``. So nu is recovered as far as the utilities are: those of
    arithmetic chains can be learned to the end, those of the demo's world cannot by a model of this size.

    Args:
        seed: Seed of data, model and training.
        size: How large.
        nu: What the ties are drawn with.
        on: ``"chains"``: a wrong step costs 3, one that says nothing 1. ``"world"``: half of the true utility.
    """
    if on == "world":
        counts = {"n_train": size.num_train, "n_held_out": size.num_held_out}
        world = generate_ties(seed, **counts, nu=nu, scale=0.5, sizes=(6, 6))
        train, held_out = world.train, world.held_out
        truth = [[0.5 * true_utility(group.prompt, c) for c in group.completions] for group in held_out]
    else:
        rng = Random(seed)
        problems, held_out = _chains(seed, size, p_wrong=0.5)
        train = [replace(group, pairs=sample_comparisons(rng, _utilities(group), nu)) for group in problems]
        truth = [_utilities(group) for group in held_out]
    # The centering penalty shrinks the differences, and nu with them; nu starts at 1 and has the whole way to go.
    options = {"objective": "davidson", "center_rewards_coefficient": 0.0, "objective_learning_rate": 0.03}
    scorer = _train(seed, size, train, options, words=on == "chains")
    assert scorer.contract is not None
    tied = [pair.tie for group in train for pair in group.pairs]
    share = sum(tied) / len(tied)
    scores = np.array(scorer.score_groups(held_out))
    within = [values - values.mean(axis=1, keepdims=True) for values in (scores, np.array(truth))]
    return Recovery(
        truth=nu,
        learned=math.exp(scorer.contract.objective["log_nu"]),
        from_shares=2 * share / (1 - share),
        correlation=float(np.corrcoef(within[0].ravel(), within[1].ravel())[0, 1]),
    )


def _utilities(group: PromptGroup) -> list[float]:
    """What the solutions of a chain are worth where they are compared."""
    of_each = [[step.label for step in some] for some in group.steps]
    return [-3.0 * labels.count(-1) - labels.count(0) for labels in of_each]


def margins(seed: int, size: StudySize, margin_from: str) -> Finding:
    """Correlation, over held-out pairs, of the score difference (chosen less rejected) with the strength.

    Args:
        seed: Seed of data, model and training.
        size: How large.
        margin_from: Of :class:`~rewardlab.training.arguments.RewardArguments`; ``"column"`` is no margin here.

    Returns:
        Pearson's correlation, beside that of the difference in length.
    """
    rng = Random(seed)
    train, held_out = (
        [replace(group, pairs=sample_strengths(rng, _utilities(group))) for group in groups]
        for groups in _chains(seed, size, p_wrong=0.5)
    )
    scorer = _train(seed, size, train, {"objective": "bradley_terry", "margin_from": margin_from}, words=True)
    # One row per pair, its strength the rating of what is scored: the difference.
    rated = [
        PromptGroup(group.prompt, (group.completions[pair.chosen],), ratings=(pair.strength,))
        for group in held_out
        for pair in group.pairs
    ]

    def correlation(scores: Sequence[Sequence[float]]) -> Interval:
        leads = [
            [row[pair.chosen] - row[pair.rejected]]
            for group, row in zip(held_out, scores, strict=True)
            for pair in group.pairs
        ]
        found = evaluate_ratings(rated, leads, seed=seed).pearson
        assert found is not None
        return found

    lengths = [[float(len(str(c))) for c in group.completions] for group in held_out]
    return Finding(correlation(scorer.score_groups(held_out)), _either_way("length", correlation(lengths).value))


def step_scores_by_length(groups: Sequence[PromptGroup], sign: int) -> list[list[list[float]]]:
    """What takes longer steps (``sign`` -1), or shorter ones (1), for wrong would give as P(correct)."""
    return [
        [[1 / (1 + 2.0 ** (-sign * len(step.text) / 50)) for step in some] for some in group.steps] for group in groups
    ]


def _either_way(name: str, value: float, *, middle: float = 0.0) -> dict[str, float]:
    """A baseline that may be turned round: the better of its value and its mirror image."""
    return {name: middle + abs(value - middle)}


def _true_ranking(group: PromptGroup) -> Ranking:
    utilities = [round(true_utility(group.prompt, completion), 9) for completion in group.completions]
    order = sorted(set(utilities), reverse=True)
    return Ranking(tuple(range(len(utilities))), tuple(order.index(utility) for utility in utilities))


def _chains(seed: int, size: StudySize, *, p_wrong: float) -> tuple[list[PromptGroup], list[PromptGroup]]:
    """Training and held-out problems with four solutions each; half of the held-out solutions are wrong."""
    options: dict[str, Any] = {"num_solutions": 4, "num_operations": (2, 4), "clock": CLOCK, "label_after_error": True}
    held_out = generate_solutions(2 * seed, size.num_held_out, p_wrong=0.5, **options)
    known = {group.prompt for group in held_out}
    train = generate_solutions(2 * seed + 1, size.num_train + size.num_held_out, p_wrong=p_wrong, **options)
    return [group for group in train if group.prompt not in known][: size.num_train], held_out


def _train(
    seed: int, size: StudySize, train: Sequence[PromptGroup], options: Mapping[str, Any], *, words: bool = False
) -> Scorer:
    """A decoder that starts from nothing, trained for one epoch, saved, and loaded again to score."""
    with tempfile.TemporaryDirectory() as folder:
        base, trained = Path(folder) / "base", Path(folder) / "trained"
        build_base_model(base, train, DemoSize(vocabulary=512 if words else 2048), seed)
        if words:
            _word_tokenizer(train).save_pretrained(base)
        train_reward_model(
            model=base,
            train_groups=train,
            output_dir=trained,
            dtype="float32",
            overrides={
                "seed": seed,
                "learning_rate": size.learning_rate,
                "per_device_train_batch_size": size.batch_size,
                "adam_beta2": 0.95,
                "max_length": 256,
                "save_strategy": "no",
                "report_to": "none",
                "disable_tqdm": True,
                **options,
            },
        )
        return Scorer.from_pretrained(trained)


def _word_tokenizer(groups: Sequence[PromptGroup]) -> PreTrainedTokenizerFast:
    """Whole words, so that an equation is one token: composing it out of digits takes far more training than its truth.

    Its special tokens have the ids that :func:`~rewardlab.studies.demo.build_base_model` gives them, and it has fewer
    tokens than that model's table of embeddings has rows.
    """
    pad, bos, eos = SPECIAL_TOKENS
    inner = Tokenizer(models.WordLevel(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    texts = (text for group in groups for text in (str(group.prompt), *(str(c) for c in group.completions)))
    inner.train_from_iterator(
        texts, trainers.WordLevelTrainer(special_tokens=[*SPECIAL_TOKENS, "<unk>"], show_progress=False)
    )
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=pad, bos_token=bos, eos_token=eos, unk_token="<unk>"
    )
