"""Prompts and completions of a policy -> scores, streamed: each prompt computed once, memory bounded.

What a policy can do to a completion (make it too long, write the step separator) leaves that completion without a score
and its neighbours with theirs; what is wrong with the input itself raises. This file knows a scorer and texts; it knows
no transforms and no trainer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rewardlab.data.encoding import EncodedGroup, reason_of
from rewardlab.data.formats import scored_text
from rewardlab.errors import (
    CompletionOfSeveralTurnsError,
    CompletionTooLongError,
    DataError,
    LoneSurrogateError,
    StepBoundaryError,
)
from rewardlab.rewards.batch import FloatArray
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import Message, PromptGroup, Text, text_key

AnyText = str | Sequence[Message]
"""A prompt or a completion as trainers give it: text, or a list of messages."""

_CHUNK = 256  # completions encoded and scored at a time: many forwards, yet few ids in memory

_OF_THE_COMPLETION = (
    CompletionTooLongError,
    StepBoundaryError,
    CompletionOfSeveralTurnsError,
    LoneSurrogateError,
)


@dataclass(frozen=True, slots=True)
class Unscored:
    """A completion that has no score.

    Attributes:
        index: Which of the call.
        reason: Why, worded as in ledgers: ``"kind: detail"``.
    """

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores in the order of the texts.

    Attributes:
        scores: In the scorer's scale, shape (n,), float64; NaN where a completion has none.
        disagreements: Of an ensemble, the standard deviation of its members' scores, shape (n,), float64, NaN where
            there is no score; None of one model.
        unscored: The completions without a score, and why.
        num_truncated: Sequences that lost the oldest part of their prompt.
    """

    scores: FloatArray
    disagreements: FloatArray | None
    unscored: tuple[Unscored, ...]
    num_truncated: int


class EndTokens:
    r"""Takes a policy's special tokens off the ends of its completions.

    Args:
        tokens: The tokens, as text. Blanks go where a token stands before them; the completion's own stay.

    Example:
        >>> EndTokens(["<|im_end|>", "<pad>"]).strip("Paris. <|im_end|>\n<pad><pad>")
        'Paris. '
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        known = sorted({token for token in tokens if token}, key=len, reverse=True)
        one = "|".join(map(re.escape, known))
        self._ends = re.compile(rf"\A(?:\s*(?:{one}))+|(?:(?:{one})\s*)+\Z") if known else None

    def strip(self, completion: AnyText) -> AnyText:
        """The completion without them; of messages, each content that is text."""
        if self._ends is None:
            return completion
        if isinstance(completion, str):
            return self._ends.sub("", completion)
        return [
            {**message, "content": self.strip(message["content"])}
            if isinstance(message.get("content"), str)
            else message
            for message in completion
        ]


def texts_of(prompts: Sequence[AnyText], completions: Sequence[AnyText], ends: EndTokens) -> list[tuple[Text, Text]]:
    """Prompts and completions as they are scored, read as :meth:`Scorer.score` reads them.

    Raises:
        DataError: The two differ in number, or an item is neither text nor messages.
    """
    for name, value in (("prompts", prompts), ("completions", completions)):
        if isinstance(value, str):
            raise DataError(f"{name} is one text, expected a list of them", hint=f"pass [{name[:-1]}]")
    if len(prompts) != len(completions):
        raise DataError(
            f"{len(prompts)} prompts for {len(completions)} completions",
            hint="repeat a prompt for each of its completions",
        )
    texts = []
    for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            texts.append(scored_text(prompt, ends.strip(completion)))
        except DataError as error:
            raise DataError(f"item {index}: {error.message}", hint=error.hint) from error
    return texts


def score_texts(scorer: Scorer, texts: Sequence[tuple[Text, Text]]) -> Scored:
    """Scores of (prompt, completion) pairs; those of equal prompts are computed as one group.

    Args:
        scorer: The scorer.
        texts: The pairs, in any order.

    Raises:
        DataError: The chat template refuses a conversation.
    """
    scores = np.full(len(texts), np.nan)
    spread = np.full(len(texts), np.nan) if scorer.is_ensemble else None
    by_prompt: dict[str, list[int]] = {}
    for index, (prompt, _) in enumerate(texts):
        by_prompt.setdefault(text_key(prompt, role="user"), []).append(index)
    unscored: list[Unscored] = []
    truncated = 0
    for chunk in _chunks(by_prompt.values()):
        encoded, kept, failed = _encoded(scorer, texts, chunk)
        truncated += sum(item.truncated for item in encoded)
        unscored += [Unscored(index, reason_of(error)) for index, error in failed]
        if spread is None:
            found = scorer.score_encoded(encoded)
        else:
            found, spreads = scorer.score_encoded_disagreement(encoded)
            spread[kept] = [value for of_group in spreads for value in of_group]
        scores[kept] = [score for of_group in found for score in of_group]
        unscored += [
            Unscored(index, f"no finite score: the model gives {scores[index]}")
            for index in kept
            if not np.isfinite(scores[index])
        ]
    return Scored(scores, spread, tuple(sorted(unscored, key=lambda item: item.index)), truncated)


def _encoded(
    scorer: Scorer, texts: Sequence[tuple[Text, Text]], chunk: Sequence[Sequence[int]]
) -> tuple[list[EncodedGroup], list[int], list[tuple[int, DataError]]]:
    """A chunk's groups as ids, the places of the completions in them, and those that cannot be encoded."""
    groups = [
        PromptGroup(texts[places[0]][0], tuple(texts[i][1] for i in places), source=f"item {places[0]}")
        for places in chunk
    ]
    encoded: list[EncodedGroup] = []
    kept: list[int] = []
    failed: list[tuple[int, DataError]] = []
    for places, group, result in zip(chunk, groups, scorer.encoder.encode_many(groups), strict=True):
        if isinstance(result, DataError):  # find which completions it is, and keep the others together
            alone = [replace(group, completions=(texts[i][1],), source=f"item {i}") for i in places]
            results = scorer.encoder.encode_many(alone)
            errors = {i: item for i, item in zip(places, results, strict=True) if isinstance(item, DataError)}
            for error in errors.values():
                if not isinstance(error, _OF_THE_COMPLETION):
                    raise error
            failed += errors.items()
            places = [place for place in places if place not in errors]
            if not places:
                continue
            result = scorer.encoder.encode(replace(group, completions=tuple(texts[i][1] for i in places)))
        encoded.append(result)
        kept += places
    return encoded, kept, failed


def _chunks(groups: Iterable[list[int]]) -> Iterator[list[list[int]]]:
    """Groups in portions of at most :data:`_CHUNK` completions; a larger group is cut."""
    portion: list[list[int]] = []
    size = 0
    for places in groups:
        for start in range(0, len(places), _CHUNK):
            piece = places[start : start + _CHUNK]
            if size + len(piece) > _CHUNK:
                yield portion
                portion, size = [], 0
            portion.append(piece)
            size += len(piece)
    if portion:
        yield portion
