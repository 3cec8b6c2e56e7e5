"""A policy trained by DPO as a reward model: its implicit reward.

    scorer = ImplicitRewardScorer.from_pretrained("my-dpo-policy", "its-sft-model", beta=0.1)
    scorer.score(["What is 2 + 2?"], ["4"])

DPO's loss is the Bradley-Terry loss of ``beta * (log pi(y|x) - log pi_ref(y|x))``, so that any policy is a reward model
beside the model it was trained from. The policy's chat template, sealed, decides the text; the log-probabilities are
summed over the completion's tokens, the end token included (what the template writes behind it, no policy generates),
and the prompt's are not.

This file knows two causal language models; how text becomes ids and how a score is evaluated it leaves to the
:class:`~rewardlab.scoring.scorer.Scorer` that it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from rewardlab.calibration.scale import ScoreScale
from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import render, seal_chat_template, tokenize
from rewardlab.errors import CheckpointError, ConfigError, DataError, first_line
from rewardlab.modeling.declared_size import require_declared_size
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.loading import (
    RewardModel,
    fingerprint_of,
    load_config,
    load_tokenizer,
    position_limit,
    quiet_transformers,
    require_device,
    require_finite,
    require_no_gaps,
    require_safetensors,
    resolve_folder,
    torch_dtype,
)
from rewardlab.modeling.parity import LayoutChoice, choose_layout
from rewardlab.modeling.planner import Forward
from rewardlab.modeling.prefix_tree import Ids
from rewardlab.modeling.probes import probe_groups
from rewardlab.scoring.features import completion_features
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import ReadOut, Scale, conversation

if TYPE_CHECKING:
    from collections.abc import Iterable

logger = logging.getLogger(__name__)

_GROUPS_AT_ONCE = 64  # given to the policy, then to the reference, before progress is told


class ImplicitRewardScorer(Scorer):
    """Scores completions with a policy, beside the reference it was trained from.

    The score is ``beta * (log pi(y|x) - log pi_ref(y|x))``; without a reference ``beta * log pi(y|x)``.

    Args:
        policy: A model from :func:`load_policy`.
        reference: Likewise, with the same tokenizer; None for the reference-free score.
        beta: DPO's beta, that of the training where differences are to be calibrated; it changes no order.
        length_normalised: Divide by the number of completion tokens.
        max_length: Longest sequence in tokens; by default as long as both models have positions for.
        tokens_per_batch: Most tokens in one forward; by default what suits the device. Each read token has a row of
            float32 logits over the vocabulary.
        engine: As for :class:`~rewardlab.scoring.scorer.Scorer`; chosen for each of the two models.

    Attributes:
        policy: As given.
        reference: As given.
        beta: As given.
        length_normalised: As given.
        loaded: The policy.
        layout: The layout the policy has.

    Raises:
        CheckpointError: The two tokenizers give different ids.
        ConfigError: ``beta`` is not above 0, or ``max_length`` is beyond the positions of one of the two.

    References:
        Rafailov et al. 2023 (arXiv:2305.18290), section 4 and equation 7: the implicit reward. Sum without
        normalisation, as in DPO's loss; length-normalised, as in SimPO (arXiv:2405.14734), whose reward is also
        reference-free.
    """

    def __init__(
        self,
        policy: RewardModel,
        reference: RewardModel | None,
        *,
        beta: float = 0.1,
        length_normalised: bool = False,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        engine: str = "auto",
    ) -> None:
        if not (math.isfinite(beta) and beta > 0):
            raise ConfigError(f"beta must be above 0, got {beta}", hint="0.1 is DPO's usual one")
        self.policy, self.reference = policy, reference
        self.beta, self.length_normalised = beta, length_normalised
        models = [policy] if reference is None else [policy, reference]
        if max_length is None:
            max_length = min(model.max_length for model in models)
        self.encoder, *_ = (model.encoder(max_length) for model in models)
        if reference is not None:
            _require_same_ids(policy, reference, self.encoder)
        layouts = [_layout_of(model, self.encoder, engine) for model in models]
        self._engines = [
            Engine(model.model, layout.layout, tokens_per_batch) for model, layout in zip(models, layouts, strict=True)
        ]
        self.loaded = policy
        self.read_out = ReadOut()  # to the outside there is one number per completion
        self.scale = "raw"  # there is no contract that could hold a scale
        self.reference_scale = ScoreScale(None, None)
        self.layout = layouts[0]
        self.num_truncated = 0

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        reference: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        engine: str = "auto",
        trust_remote_code: bool = False,
        verify: bool = True,
        aggregation: str | None = None,
        neutral_is_correct: bool | None = None,
        scale: Scale = "raw",
        beta: float = 0.1,
        length_normalised: bool = False,
    ) -> ImplicitRewardScorer:
        """Load a policy, and its reference.

        Args:
            path: The policy, a local folder or a hub id of a causal language model.
            reference: The model it was trained from, likewise; None for the reference-free score.
            device: Where to score; by default the first CUDA device, else the CPU.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; by default what each checkpoint is saved in.
            max_length: As for the class.
            tokens_per_batch: As for the class.
            engine: As for the class.
            trust_remote_code: Run the repositories' own Python code.
            verify: Means nothing here: a policy has no contract that could be checked.
            aggregation: Must be None: there is one score.
            neutral_is_correct: Must be None: there are no steps.
            scale: Must be ``"raw"``: a policy has no contract that could hold a scale.
            beta: As for the class.
            length_normalised: As for the class.

        Raises:
            CheckpointError: One of the two is no causal language model, or cannot be trusted; or their tokenizers
                give different ids.
            ConfigError: An option that cannot be used.
        """
        for name, value in (("aggregation", aggregation), ("neutral_is_correct", neutral_is_correct)):
            if value is not None:
                raise ConfigError(f"{name} {value!r}: an implicit reward is one score", hint="leave it out")
        if scale != "raw":
            raise ConfigError(f"scale {scale!r}: an implicit reward has no reference set", hint="leave it out")
        options: dict[str, Any] = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code}
        return cls(
            load_policy(path, **options),
            None if reference is None else load_policy(reference, **options),
            beta=beta,
            length_normalised=length_normalised,
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            engine=engine,
        )

    @property
    def checkpoints(self) -> tuple[RewardModel, ...]:
        """The policy, and the reference where there is one."""
        return (self.policy,) if self.reference is None else (self.policy, self.reference)

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens in one forward."""
        return self._engines[0].planner.tokens_per_batch

    @property
    def fingerprint(self) -> str:
        """Equal where both checkpoints, beta and the normalisation are."""
        reference = None if self.reference is None else self.reference.fingerprint
        parts = [self.policy.fingerprint, reference, self.beta, self.length_normalised]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def outputs(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[Tensor]]:
        """The implicit reward of every completion, shape (1,) each, float64.

        Args:
            encoded: Groups encoded by this scorer's ``encoder``.
            on_progress: Called with the number of completions just scored.

        Raises:
            DataError: A completion is a single token with none before it.
        """
        rewards: list[list[Tensor]] = []
        for start in range(0, len(encoded), _GROUPS_AT_ONCE):
            groups = encoded[start : start + _GROUPS_AT_ONCE]
            sequences = [sequence for item in groups for sequence in item.sequences]
            positions = [own for item in groups for own in _positions(item)]
            sums = [log_likelihoods(engine, sequences, positions) for engine in self._engines]
            found = self.beta * (sums[0] if len(sums) == 1 else sums[0] - sums[1])
            if self.length_normalised:
                found = found / torch.tensor([len(own) for own in positions])
            rewards += [list(of_group.split(1)) for of_group in found.split([len(g.sequences) for g in groups])]
            if on_progress is not None:
                on_progress(len(sequences))
        return rewards

    def _features_of(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None
    ) -> list[NDArray[np.float32]]:
        # A policy's output embedding reads its features; which token is read there is the next one's prediction.
        return completion_features(self._engines[0], encoded, lambda item: list(_positions(item)), on_progress)


def log_likelihoods(engine: Engine, sequences: Sequence[Ids], positions: Sequence[Sequence[int]]) -> Tensor:
    """The log-probability that a causal language model gives some tokens, summed over each sequence.

    The token at position p is predicted at p - 1. Logits become log-probabilities forward by forward: those of all
    sequences would need gigabytes.

    Args:
        engine: Of the model, in eval mode.
        sequences: Ids of each sequence; equal ones are computed once.
        positions: Positions of the tokens that count, each above 0.

    Returns:
        Shape (sequences,), float64, on the CPU; nats.
    """
    keys = [(tuple(ids), tuple(own)) for ids, own in zip(sequences, positions, strict=True)]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    targets = torch.tensor([ids[position] for ids, own in places for position in own])
    read_at = [[position - 1 for position in own] for _, own in places]

    found = engine.rows([ids for ids, _ in places], read_at, None, _LogLikelihoods(targets)).double()
    sums = torch.stack([of_one.sum() for of_one in found.split([len(own) for own in read_at])])
    return sums[[places[key] for key in keys]]


@dataclass(frozen=True, slots=True)
class _LogLikelihoods:
    """The log-probability of each read-out's next token; what an engine can have computed in another process.

    Attributes:
        targets: That token's id, of all read-outs.
    """

    targets: Tensor

    def __call__(self, engine: Engine, forward: Forward) -> Tensor:
        logits = engine.scores(forward)
        wanted = self.targets[list(forward.indices)].to(logits.device)
        return -functional.cross_entropy(logits, wanted, reduction="none")


def load_policy(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> RewardModel:
    """Load a causal language model, read at the tokens of a completion.

    Args:
        source: A local folder or a hub id.
        device: Where to; by default the first CUDA device, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; by default what the checkpoint is saved in.
        trust_remote_code: Run the repository's own Python code. Off by default.

    Returns:
        The model in eval mode; it has no contract.

    Raises:
        CheckpointError: It is a reward model, an encoder, or its weights cannot be trusted; the message says why.
        ConfigError: There is no such device or dtype.
    """
    where = require_device(device)
    wanted = torch_dtype(dtype)
    folder = resolve_folder(source)
    config = load_config(folder, trust_remote_code=trust_remote_code)
    heads = [name for name in config.architectures or () if "Classification" in name or "MaskedLM" in name]
    if heads:
        raise CheckpointError(
            f"{folder}: {heads[0]} gives tokens no probabilities after those before, expected a causal language model",
            hint="a reward model is scored by itself, without a reference",
        )
    require_safetensors(folder)
    loader: Any = AutoModelForCausalLM
    require_declared_size(folder, config, loader)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    try:
        with quiet_transformers():
            model, report = loader.from_pretrained(
                folder,
                config=config,
                dtype=wanted,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
    except ValueError as error:
        raise CheckpointError(
            f"{folder}: no causal language model: {first_line(error)}",
            hint="an implicit reward needs a policy that gives probabilities to tokens",
        ) from error
    require_no_gaps(folder, sorted(report["missing_keys"]) + [str(key) for key in report["mismatched_keys"]])
    require_finite(folder, model)
    sealed = seal_chat_template(tokenizer)
    notes = sealed.changes
    if sealed.origin == "plain":
        notes = ("the tokenizer has no chat template: the plain one is used, which the model may never have seen",)
    for note in notes:
        logger.warning("%s: %s", folder, note)
    text_config = model.config.get_text_config()
    if text_config.pad_token_id is None:
        text_config.pad_token_id = 0  # padding stands behind all that is read, and is masked: any id will do
    model.config.use_cache = False
    model.eval().to(where)
    limit = position_limit(config, tokenizer)
    return RewardModel(
        model, tokenizer, None, limit or 4096, fingerprint_of(folder), ReadOut("token", "mean"), folder, notes
    )


def _positions(encoded: EncodedGroup) -> Iterable[list[int]]:
    """Where the completions' tokens stand; one with nothing before it has no probability and is left out."""
    for index, own in enumerate(encoded.readouts):
        positions = [position for position in own if position > 0]
        if not positions:
            raise DataError(
                f"{encoded.group.name}: completion {index} is one token with nothing before it",
                hint="give it a prompt, or the tokenizer a chat template that begins with a token",
            )
        yield positions


def _layout_of(loaded: RewardModel, encoder: Encoder, engine: str) -> LayoutChoice:
    """The best layout that gives this model's logits, compared on the probes."""
    probes = [encoder.encode(group) for group in probe_groups(encoder)]
    # The first two are answers to one question.
    groups = [probes[:2], *([probe] for probe in probes[2:])]
    layout = choose_layout(
        loaded.model,
        [[probe.sequences[0] for probe in group] for group in groups],
        readouts=[[next(iter(_positions(probe))) for probe in group] for group in groups],
        engine=engine,
        longest=encoder.max_length,
    )
    layout.log(logger)
    return layout


def _require_same_ids(policy: RewardModel, reference: RewardModel, encoder: Encoder) -> None:
    """Refuse a reference to which the policy's ids would mean other tokens."""
    for group in probe_groups(encoder):
        text = render(policy.tokenizer, conversation(group.prompt, group.completions[0]))
        mine, theirs = tokenize(policy.tokenizer, text), tokenize(reference.tokenizer, text)
        if mine != theirs:
            place = next(
                (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
            )
            raise CheckpointError(
                f"{reference.folder} has another tokenizer than {policy.folder}: the ids of {text[:40]!r} differ from "
                f"token {place} on, {mine[place : place + 3]} and {theirs[place : place + 3]}",
                hint="the reference is the model that the policy was trained from, with the same tokenizer",
            )
