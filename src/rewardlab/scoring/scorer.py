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
from rewardlab.modeling.forward import TOKENS_PER_BATCH, score_sequences
from rewardlab.modeling.loading import RewardModel, load_reward_model
from rewardlab.modeling.verification import require_contract_holds
from rewardlab.types import Message, PromptGroup

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)


class Scorer:
    """Scores completions with one reward model.

    Args:
        loaded: A model from :func:`~rewardlab.modeling.loading.load_reward_model`.
        max_length: Longest sequence in tokens; by default the contract's.
        tokens_per_batch: Most padded tokens in one forward; completions of like length share a batch.

    Attributes:
        encoder: Turns groups into ids, by the model's chat template.
        num_truncated: Sequences cut to the maximum length so far; the first cut is warned about.
    """

    def __init__(
        self, loaded: RewardModel, *, max_length: int | None = None, tokens_per_batch: int = TOKENS_PER_BATCH
    ) -> None:
        self.loaded = loaded
        self.tokens_per_batch = tokens_per_batch
        self.encoder: Encoder = loaded.encoder(max_length)
        self.num_truncated = 0

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        max_length: int | None = None,
        tokens_per_batch: int = TOKENS_PER_BATCH,
        trust_remote_code: bool = False,
        verify: bool = True,
    ) -> Scorer:
        """Load a reward model and check its contract.

        Args:
            path: A local folder or a hub id.
            device: Where to score; by default the first CUDA device, else the CPU.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"``; by default what the checkpoint is saved in.
            max_length: Longest sequence in tokens; by default the contract's.
            tokens_per_batch: Most padded tokens in one forward.
            trust_remote_code: Run the repository's own Python code.
            verify: Score the contract's probes and refuse a model that no longer gives their scores.

        Raises:
            CheckpointError: The model cannot be trusted to give scores.
            ContractError: Its probes do not give their stored scores.
        """
        loaded = load_reward_model(path, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
        if verify:
            require_contract_holds(loaded)
        elif loaded.contract is not None:
            logger.warning("%s: its contract is NOT checked; its scores may not be those it was saved with", path)
        return cls(loaded, max_length=max_length, tokens_per_batch=tokens_per_batch)

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
        scores = iter(
            score_sequences(
                self.loaded.model, sequences, tokens_per_batch=self.tokens_per_batch, on_progress=on_progress
            )
        )
        return [[next(scores) for _ in item.sequences] for item in encoded]


def _group(prompt: object, completion: object, index: int) -> PromptGroup:
    try:
        text, answer = scored_text(prompt, completion)
    except DataError as error:
        raise DataError(f"item {index}: {error.message}", hint=error.hint) from error
    return PromptGroup(text, (answer,), source=f"item {index}")
