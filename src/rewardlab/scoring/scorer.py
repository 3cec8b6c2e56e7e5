"""Text -> score: the only such path outside training.

    scorer = Scorer.from_pretrained("my-reward-model")
    scorer.score(["What is 2 + 2?"], ["4"])            # [1.73]

Template, ids, padding and forward are the ones training used; the contract's probes are scored again when the model is
loaded, so a checkpoint that no longer gives its scores is refused rather than used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rewardlab.calibration.scale import ScoreScale
from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.formats import scored_text
from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.aggregation import AGGREGATIONS, group_outputs, score_of, step_scores_of
from rewardlab.modeling.contract import Contract
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.loading import RewardModel, load_reward_model
from rewardlab.modeling.parity import LayoutChoice
from rewardlab.modeling.verification import layout_for_scoring, require_contract_holds
from rewardlab.scoring.features import completion_features
from rewardlab.types import Aggregation, Message, PromptGroup, ReadOut, Scale

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

logger = logging.getLogger(__name__)

Computed = TypeVar("Computed")


class Scorer:
    """Scores completions with one reward model.

    Args:
        loaded: A model from :func:`~rewardlab.modeling.loading.load_reward_model`.
        max_length: Longest sequence in tokens; by default the contract's.
        tokens_per_batch: Most tokens in one forward; by default what suits the device.
        engine: How sequences are laid out: ``"tree"`` (each shared prefix computed once), ``"packed"``, ``"padded"``,
            or ``"auto"`` for the best that gives this model's scores.
        aggregation: How the probabilities of a completion's tokens or steps become its score, ``"mean"``, ``"min"``,
            ``"product"`` or ``"last"``; by default the model's own.
        neutral_is_correct: Whether a step's score is P(correct) + P(neutral) instead of P(correct); by default the
            model's own.
        scale: What scores are given in: ``"raw"``, ``"centered"``, ``"z"``, ``"percentile"`` or ``"calibrated"``
            (:mod:`rewardlab.calibration.scale`), by the contract's reference and temperature.

    Attributes:
        read_out: Where the model is read, and how that becomes one score.
        scale: What scores are given in.
        reference_scale: Turns raw scores into any scale.
        layout: The layout in use, and why no better one.
        encoder: Turns groups into ids, by the model's chat template.
        num_truncated: Sequences cut to the maximum length so far; the first cut is warned about.
    """

    def __init__(
        self,
        loaded: RewardModel,
        *,
        max_length: int | None = None,
        tokens_per_batch: int | None = None,
        engine: str = "auto",
        aggregation: str | None = None,
        neutral_is_correct: bool | None = None,
        scale: Scale = "raw",
    ) -> None:
        self.loaded = loaded
        self.read_out = _chosen(loaded.read_out, aggregation, neutral_is_correct)
        self.reference_scale = _scale_of(loaded, self.read_out, scale)
        self.scale: Scale = scale
        self.encoder: Encoder = loaded.encoder(max_length)
        self.layout: LayoutChoice = layout_for_scoring(loaded, self.encoder, engine)
        self.layout.log(logger)
        self._engine = Engine(loaded.model, self.layout.layout, tokens_per_batch)
        self.num_truncated = 0

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
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
    ) -> Scorer:
        """Load a reward model and check its contract.

        Args:
            path: A local folder or a hub id.
            device: Where to score; by default the first CUDA device, else the CPU.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; by default what the checkpoint is saved in.
            max_length: Longest sequence in tokens; by default the contract's.
            tokens_per_batch: Most tokens in one forward; by default what suits the device.
            engine: As for the class.
            trust_remote_code: Run the repository's own Python code.
            verify: Score the contract's probes and refuse a model that no longer gives their scores.
            aggregation: As for the class.
            neutral_is_correct: As for the class.
            scale: As for the class.

        Raises:
            ConfigError: There is nothing to aggregate, no neutral class, or the contract does not give the scale.
            CheckpointError: The model cannot be trusted to give scores.
            ContractError: Its probes do not give their stored scores.
        """
        loaded = load_reward_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        scorer = cls(
            loaded,
            max_length=max_length,
            tokens_per_batch=tokens_per_batch,
            engine=engine,
            aggregation=aggregation,
            neutral_is_correct=neutral_is_correct,
            scale=scale,
        )
        if verify:
            require_contract_holds(loaded, scorer.layout.layout)
        elif loaded.contract is not None:
            logger.warning("%s: its contract is NOT checked; its scores may not be those it was saved with", path)
        return scorer

    @property
    def contract(self) -> Contract | None:
        """The model's contract; None for models of others."""
        return self.loaded.contract

    @property
    def checkpoints(self) -> tuple[RewardModel, ...]:
        """Every model that is computed for a score: one here; an ensemble's members, a policy and its reference."""
        return (self.loaded,)

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens in one forward."""
        return self._engine.planner.tokens_per_batch

    def num_tokens(self, encoded: EncodedGroup) -> int:
        """Tokens that all models together are given for a group, each sequence counted whole.

        Args:
            encoded: A group encoded by this scorer's ``encoder``.
        """
        return len(self.checkpoints) * sum(encoded.lengths)

    @property
    def settings(self) -> dict[str, Any]:
        """Whatever decides the scores beside the checkpoint, as JSON: a file begun under others is not gone on with."""
        return {
            "device": self.loaded.model.device.type,
            "dtype": self.loaded.dtype,
            "max_length": self.encoder.max_length,
            "layout": self.layout.layout,
            "aggregation": self.read_out.aggregation,
            "neutral_is_correct": self.read_out.neutral_is_correct,
            "scale": self.scale,
        }

    @property
    def fingerprint(self) -> str:
        """Equal for equal checkpoints."""
        return self.loaded.fingerprint

    def score(
        self,
        prompts: Sequence[str | Sequence[Message]],
        completions: Sequence[str | Sequence[Message]],
    ) -> list[float]:
        """Scores of completions, each to its own prompt.

        Args:
            prompts: One per completion: text (one user turn; an hh-rlhf transcript is read as its turns), or messages.
            completions: Text, or messages.

        Returns:
            One score per completion, in the scorer's scale. Of raw scores only differences within a prompt mean
            something.

        Raises:
            DataError: The two differ in number, or an item is neither text nor messages.
            CompletionTooLongError: A completion does not fit the maximum length.
        """
        for name, value in (("prompts", prompts), ("completions", completions)):
            if isinstance(value, str):
                raise DataError(f"{name} is one text, expected a list of them", hint=f"pass [{name[:-1]}]")
        if len(prompts) != len(completions):
            raise DataError(
                f"{len(prompts)} prompts for {len(completions)} completions",
                hint="repeat a prompt for each of its completions",
            )
        groups = [
            _group(prompt, completion, index)
            for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
        return [scores[0] for scores in self.score_groups(groups)]

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> list[list[float]]:
        """Scores of every completion of every group, in order.

        Args:
            groups: The groups.
            progress: Show a progress bar on stderr.

        Raises:
            CompletionTooLongError: A completion does not fit the maximum length.
            DataError: The chat template refuses a conversation.
        """
        return self.scores_of(self._outputs_with_bar(self._encoded(groups), progress))[0]

    def score_groups_steps(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Scores as :meth:`score_groups` and step scores as :meth:`step_scores`, in one pass over the model.

        Args:
            groups: The groups.
            progress: Show a progress bar on stderr.

        Raises:
            ConfigError: This is no process model.
            DataError: As :meth:`step_scores`.
        """
        self._require_kind("step", "step scores", "process")
        return self.scores_of(self._outputs_with_bar(self._encoded(groups), progress))

    def score_groups_disagreement(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Scores as :meth:`score_groups`, and how far the members of an ensemble disagree on each, in one pass.

        Args:
            groups: The groups.
            progress: Show a progress bar on stderr.

        Returns:
            Scores and disagreements, each per group and completion; a disagreement is the standard deviation (ddof 0)
            of the members' scores on their common scale.

        Raises:
            ConfigError: This is no ensemble.
            DataError: As :meth:`score_groups`.
        """
        raise self._not_an_ensemble()

    def features(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> list[NDArray[np.float32]]:
        """What the head reads of each completion: the model's own features of it.

        Args:
            groups: The groups.
            progress: Show a progress bar on stderr.

        Returns:
            Per group shape (K, hidden), float32. Of outcome and process models the mean over the tokens or steps that
            are read, of an implicit reward the policy's over the completion's tokens, of an ensemble the first
            member's.

        Raises:
            CheckpointError: The model runs in the padded layout and reads a whole sequence at its end: transformers
                then applies the head to every token, and there is no one row.
            DataError: As :meth:`score_groups`.
        """
        encoded = self._encoded(groups)
        return self._with_bar(encoded, progress, lambda told: self._features_of(encoded, told))

    def _features_of(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None
    ) -> list[NDArray[np.float32]]:
        return completion_features(self._engine, encoded, lambda item: item.readouts, on_progress)

    def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """P(correct) of each step of every completion, by a process model.

        Args:
            groups: The groups; completions without ``steps`` are split where the model's contract says.

        Returns:
            Per group and completion one probability per step.

        Raises:
            ConfigError: This is no process model.
            DataError: As :meth:`score_groups`; or a step contains the model's separator.
        """
        self._require_kind("step", "step scores", "process")
        return self.scores_of(self.outputs(self._encoded(groups)))[1]

    def token_logits(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """The logit of P(correct) at each token of every completion, by an outcome model.

        Raises:
            ConfigError: This is no outcome model.
            DataError: As :meth:`score_groups`.
        """
        self._require_kind("token", "token logits", "outcome")
        return [[of_one.tolist() for of_one in of_group] for of_group in self.outputs(self._encoded(groups))]

    def _require_kind(self, kind: str, what: str, objective: str) -> None:
        if self.read_out.kind != kind:
            raise ConfigError(
                f"{self.loaded.folder} gives no {what}: it is read per {self.read_out.kind}",
                hint=f"train a model with --objective {objective}",
            )

    def _not_an_ensemble(self) -> ConfigError:
        return ConfigError(
            f"{self.loaded.folder} is one model, with nobody to disagree with",
            hint="name several with commas between, A,B,C; or one with several heads, and how they are combined",
        )

    def _outputs_with_bar(self, encoded: Sequence[EncodedGroup], progress: bool) -> list[list[Tensor]]:
        return self._with_bar(encoded, progress, lambda told: self.outputs(encoded, told))

    def _with_bar(
        self,
        encoded: Sequence[EncodedGroup],
        progress: bool,
        compute: Callable[[Callable[[int], None] | None], Computed],
    ) -> Computed:
        """What ``compute`` gives, told of progress by completions."""
        from rich.console import Console

        talk = Console(stderr=True)
        if not (progress and talk.is_terminal):  # elsewhere a bar is an empty line, which cron would mail
            return compute(None)
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=talk, transient=True) as bar:
            task = bar.add_task("scoring", total=sum(len(item.sequences) for item in encoded))
            return compute(lambda n: bar.advance(task, n))

    def _encoded(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup]:
        encoded = []
        for item in self.encoder.encode_many(groups):
            if isinstance(item, DataError):
                raise item
            encoded.append(item)
        self._count_truncated(encoded)
        return encoded

    def _count_truncated(self, encoded: Sequence[EncodedGroup]) -> None:
        cut = sum(item.truncated for item in encoded)
        if cut and not self.num_truncated:
            logger.warning(
                "%d of %d sequences are longer than %d tokens and lose the oldest part of their prompt",
                cut,
                sum(len(item.sequences) for item in encoded),
                self.encoder.max_length,
            )
        self.num_truncated += cut

    def score_encoded(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[float]]:
        """Scores of groups already encoded by this scorer's ``encoder``.

        Args:
            encoded: The groups.
            on_progress: Called with the number of completions just scored.
        """
        return self.scores_of(self.outputs(encoded, on_progress))[0]

    @property
    def has_steps(self) -> bool:
        """Whether this is a process model, which scores steps too."""
        return self.read_out.kind == "step"

    def score_encoded_steps(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Scores, and P(correct) of each step per group and completion, of groups encoded by this scorer's ``encoder``.

        Args:
            encoded: The groups.
            on_progress: Called with the number of completions just scored.
        """
        return self.scores_of(self.outputs(encoded, on_progress))

    @property
    def is_ensemble(self) -> bool:
        """Whether several members are combined, whose disagreement is known too."""
        return False

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        """As :meth:`score_groups_disagreement`, of groups encoded by this scorer's ``encoder``.

        Args:
            encoded: The groups.
            on_progress: Called with the number of completions just scored.
        """
        raise self._not_an_ensemble()

    def outputs(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[Tensor]]:
        """What the head gives at each read-out (:func:`~rewardlab.modeling.aggregation.group_outputs`).

        Args:
            encoded: Groups encoded by this scorer's ``encoder``.
            on_progress: Called with the number of completions just computed.
        """
        return group_outputs(self._engine, encoded, on_progress)

    def scores_of(self, outputs: Sequence[Sequence[Tensor]]) -> tuple[list[list[float]], list[list[list[float]]]]:
        """The score of each completion, and for process models P(correct) of each of its steps.

        Args:
            outputs: Of :meth:`outputs`.

        Returns:
            Scores per group and completion; step scores likewise, empty where the model has none.
        """
        scores = [[score_of(of_one, self.read_out) for of_one in of_group] for of_group in outputs]
        if self.scale != "raw":
            scores = [self.reference_scale.transform(of_group, self.scale) for of_group in scores]
        return scores, step_scores_of(outputs, self.read_out) if self.read_out.kind == "step" else []


def _chosen(read_out: ReadOut, aggregation: str | None, neutral_is_correct: bool | None) -> ReadOut:
    """The model's read-out with what was chosen for scoring."""
    if aggregation is not None and aggregation not in AGGREGATIONS:
        raise ConfigError(f"unknown aggregation {aggregation!r}", hint=f"one of {', '.join(AGGREGATIONS)}")
    if aggregation is not None and read_out.kind == "sequence":
        raise ConfigError(
            f"aggregation {aggregation!r}: this model gives one score, there is nothing to aggregate",
            hint="leave the aggregation out",
        )
    if neutral_is_correct is not None and read_out.num_classes != 3:
        raise ConfigError("neutral_is_correct: this model has no neutral class", hint="leave it out")
    return replace(
        read_out,
        aggregation=cast("Aggregation | None", aggregation) or read_out.aggregation,
        neutral_is_correct=read_out.neutral_is_correct if neutral_is_correct is None else neutral_is_correct,
    )


def _scale_of(loaded: RewardModel, read_out: ReadOut, scale: Scale) -> ScoreScale:
    """The contract's scale; none where the scores are aggregated in another way than those it was made of.

    Raises:
        ConfigError: The scale cannot be given; said now, not after hours of scoring.
    """
    contract, own = loaded.contract, loaded.read_out
    if read_out != own and scale != "raw":
        raise ConfigError(
            f"scale {scale!r}: the contract holds the scale of scores aggregated as the model's own "
            f"({own.aggregation}, neutral_is_correct {own.neutral_is_correct})",
            hint="leave out the aggregation and neutral_is_correct, or the scale",
        )
    found = ScoreScale(None, None) if contract is None or read_out != own else contract.scale
    found.require(scale)
    return found


def _group(prompt: object, completion: object, index: int) -> PromptGroup:
    try:
        text, answer = scored_text(prompt, completion)
    except DataError as error:
        raise DataError(f"item {index}: {error.message}", hint=error.hint) from error
    return PromptGroup(text, (answer,), source=f"item {index}")
