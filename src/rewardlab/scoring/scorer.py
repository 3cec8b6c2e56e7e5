"""Text -> score: the only such path outside training.

    scorer = Scorer.from_pretrained("my-reward-model")
    scorer.score(["What is 2 + 2?"], ["4"])            # [1.73]

Template, ids, padding and forward are the ones training used; the contract's probes are scored again when the model is
loaded, so a checkpoint that no longer gives its scores is refused rather than used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.formats import scored_text
from rewardlab.errors import DataError
from rewardlab.modeling.contract import Contract
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.loading import RewardModel, load_reward_model
from rewardlab.modeling.parity import LayoutChoice
from rewardlab.modeling.verification import layout_for_scoring, require_contract_holds
from rewardlab.types import Message, PromptGroup

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Scorer:
    """Scores completions with one reward model.

    Args:
        loaded: A model from :func:`~rewardlab.modeling.loading.load_reward_model`.
        max_length: Longest sequence in tokens; by default the contract's.
        tokens_per_batch: Most tokens in one forward; by default what suits the device.
        engine: How sequences are laid out: ``"tree"`` (each shared prefix computed once), ``"packed"``, ``"padded"``,
            or ``"auto"`` for the best that gives this model's scores.

    Attributes:
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
    ) -> None:
        self.loaded = loaded
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

        Raises:
            CheckpointError: The model cannot be trusted to give scores.
            ContractError: Its probes do not give their stored scores.
        """
        loaded = load_reward_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        scorer = cls(loaded, max_length=max_length, tokens_per_batch=tokens_per_batch, engine=engine)
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
            One raw score per completion. Only differences within a prompt mean something.

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
        encoded = []
        for item in self.encoder.encode_many(groups):
            if isinstance(item, DataError):
                raise item
            encoded.append(item)
        self._count_truncated(encoded)
        if not progress:
            return self.score_encoded(encoded)
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("scoring", total=sum(len(item.sequences) for item in encoded))
            return self.score_encoded(encoded, on_progress=lambda n: bar.advance(task, n))

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
        sequences = [sequence for item in encoded for sequence in item.sequences]
        scores = iter(self._engine.score(sequences, on_progress))
        return [[next(scores) for _ in item.sequences] for item in encoded]


def _group(prompt: object, completion: object, index: int) -> PromptGroup:
    try:
        text, answer = scored_text(prompt, completion)
    except DataError as error:
        raise DataError(f"item {index}: {error.message}", hint=error.hint) from error
    return PromptGroup(text, (answer,), source=f"item {index}")
