"""Groups -> token ids: the one way in which text becomes what the model reads, in training and in scoring.

Each completion is rendered and tokenised together with its prompt, as one conversation; tokenising the two apart would
merge bytes differently at the seam. The group's shared prefix is then simply the longest common prefix of those ids.

Truncation depends on the sequence alone, never on its group, so that a score does not depend on its neighbours: what
the template puts in front and the system turn stay, the oldest whole turns go first, then the oldest tokens of the last
prompt turn. A completion is never cut.

What is read beyond the last token is found here too, on ids. The completion's tokens are those after what the same
conversation with an empty answer begins with. A step ends with the separator, a special token of the tokenizer, which
stands after every step; so text still becomes ids by the chat template alone, and a boundary is an id, never a string
searched for after tokenisation.

This file knows the tokenizer and its template; it knows no model and no batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rewardlab.data.template import render, tokenize
from rewardlab.data.token_bounds import TokenBounds
from rewardlab.errors import (
    CheckpointError,
    CompletionOfSeveralTurnsError,
    CompletionTooLongError,
    DataError,
    LoneSurrogateError,
    StepBoundaryError,
)
from rewardlab.types import Message, PromptGroup, ReadOut, Step, Text, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WORTH_A_LOOK = 4  # characters a token: below it no text is certainly too long
_CHUNK = 256  # conversations tokenised in one call: enough for the tokenizer's threads, small enough for a live bar


@dataclass(frozen=True, slots=True)
class EncodedGroup:
    """A group as token ids.

    Attributes:
        group: The group it came from.
        sequences: Ids of prompt and completion together, one tuple per completion; the score is read at the last id.
        prefix_length: How many leading ids all sequences share, at most the shortest length - 1.
        truncated: How many of the sequences were cut to fit.
        readouts: Positions in each sequence at which the head is read; empty where it is the last of each.
    """

    group: PromptGroup
    sequences: tuple[tuple[int, ...], ...]
    prefix_length: int
    truncated: int = 0
    readouts: tuple[tuple[int, ...], ...] = ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each whole sequence."""
        return tuple(len(sequence) for sequence in self.sequences)


class Encoder:
    """Turns groups into ids with a sealed tokenizer (:func:`rewardlab.data.template.seal_chat_template`).

    Args:
        tokenizer: The tokenizer, whose chat template is the text-to-ids rule.
        max_length: Longest sequence in tokens; longer ones are cut from the oldest part of the prompt.
        read_out: Where the model's numbers are read. For steps, completions are given its separator after every step.

    Raises:
        CheckpointError: The separator is not one token of the tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int, read_out: ReadOut | None = None) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.read_out = read_out or ReadOut()
        self._bounds = TokenBounds(tokenizer)
        self._separator_id = -1
        if self.read_out.separator is not None:
            ids = tokenize(tokenizer, self.read_out.separator)
            if len(ids) != 1 or ids[0] not in tokenizer.added_tokens_decoder:
                raise CheckpointError(
                    f"the step separator {self.read_out.separator!r} is no special token of the tokenizer",
                    hint="add it: tokenizer.add_special_tokens({'additional_special_tokens': [separator]})",
                )
            self._separator_id = ids[0]

    def encode(self, group: PromptGroup) -> EncodedGroup:
        """Ids of one group.

        Raises:
            CompletionTooLongError: A completion does not fit even with all of its prompt cut away.
            DataError: The chat template refuses the conversation.
        """
        (result,) = self.encode_many([group])
        if isinstance(result, DataError):
            raise result
        return result

    def encode_many(
        self, groups: Sequence[PromptGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[EncodedGroup | DataError]:
        """Ids of many groups, in order; a group that cannot be encoded gives its error in place.

        Args:
            groups: The groups.
            on_progress: Called with the number of groups just finished.
        """
        results: list[EncodedGroup | DataError] = []
        for chunk in _chunks(groups):
            results.extend(self._encode_chunk(chunk))
            if on_progress is not None:
                on_progress(len(chunk))
        return results

    def _encode_chunk(self, groups: Sequence[PromptGroup]) -> list[EncodedGroup | DataError]:
        rendered: list[tuple[PromptGroup, list[str]] | DataError] = []
        for group in groups:
            try:
                self._require_one_turn(group)
                marked = self.marked(group)
                answered = [self._render(group, conversation(group.prompt, c)) for c in marked.completions]
                _require_unicode(group, answered)
                rendered.append((marked, answered + self._without_answer(group)))
            except DataError as error:
                rendered.append(error)
        ids = iter(self._tokenized([text for item in rendered if isinstance(item, tuple) for text in item[1]]))
        results: list[EncodedGroup | DataError] = []
        for group, item in zip(groups, rendered, strict=True):
            if isinstance(item, DataError):
                results.append(item)
                continue
            marked, found = item[0], [next(ids) for _ in item[1]]
            sequences, bare = found[: len(group.completions)], found[len(group.completions) :]
            try:
                fitted = [self._fit(marked, index, sequence) for index, sequence in enumerate(sequences)]
                readouts = tuple(
                    self._readouts(marked, index, new, _num_completion_ids(old or [], [one or [] for one in bare]))
                    for index, (old, new) in enumerate(zip(sequences, fitted, strict=True))
                    if bare
                )
            except DataError as error:
                results.append(error)
                continue
            truncated = sum(old is None or len(new) < len(old) for new, old in zip(fitted, sequences, strict=True))
            prefix_length = common_prefix_length(fitted)
            results.append(EncodedGroup(group, tuple(map(tuple, fitted)), prefix_length, truncated, readouts))
        return results

    def too_long(self, text: str) -> int:
        """The tokens that a text has at least, if they are certainly more than the maximum length; else 0."""
        if len(text) <= _WORTH_A_LOOK * self.max_length:
            return 0
        least = self._bounds.at_least(text)
        return least if least > self.max_length else 0

    def _tokenized(self, texts: Sequence[str]) -> list[list[int] | None]:
        """The ids of texts; None for one that is certainly too long, where no more need be known of it."""
        short = texts if self.read_out.kind != "sequence" else [text for text in texts if not self.too_long(text)]
        # verbose=False: the tokenizer would warn of lengths that are cut later.
        ids = iter(self.tokenizer(short, add_special_tokens=False, verbose=False)["input_ids"] if short else ())
        if len(short) == len(texts):
            return list(ids)
        return [None if self.too_long(text) else next(ids) for text in texts]

    def _require_one_turn(self, group: PromptGroup) -> None:
        """Refuse a completion of several turns where each of its tokens is read: not all of them are the model's."""
        several = [i for i, c in enumerate(group.completions) if not isinstance(c, str) and len(c) > 1]
        if self.read_out.kind == "token" and several:
            raise CompletionOfSeveralTurnsError(
                f"{group.name}: completion {several[0]} has several turns, and each of its tokens would be read",
                hint="put all turns but the last into the prompt",
            )

    def marked(self, group: PromptGroup) -> PromptGroup:
        """The group as it is rendered: of a process model, with the separator after every step, and all steps told.

        Raises:
            StepBoundaryError: A step contains the separator.
        """
        if self.read_out.separator is None:
            return group
        given = group.steps or ((),) * len(group.completions)
        steps = tuple(s or self._split(c) for s, c in zip(given, group.completions, strict=True))
        for index, some in enumerate(steps):
            if any(self.read_out.separator in step.text for step in some):
                raise StepBoundaryError(
                    f"{group.name}: a step of completion {index} contains the step separator {self.read_out.separator}",
                    hint="take it out of the text, or train with another step_separator",
                )
        texts = ("".join(step.text + self.read_out.separator for step in some) for some in steps)
        completions = tuple(_with_content(c, text) for c, text in zip(group.completions, texts, strict=True))
        return replace(group, completions=completions, steps=steps)

    def _split(self, completion: Text) -> tuple[Step, ...]:
        """The steps of a completion that came as text: told by separators in it, else by where such text is split."""
        text = completion if isinstance(completion, str) else str(completion[-1].get("content") or "")
        assert self.read_out.separator is not None
        if self.read_out.separator in text:
            pieces = text.split(self.read_out.separator)
            if not pieces[-1].strip():
                pieces.pop()
        else:
            pieces = text.split(self.read_out.split_at) if self.read_out.split_at else [text]
            pieces = [piece for piece in pieces if piece.strip()] or [text]
        return tuple(Step(piece) for piece in pieces)

    def _without_answer(self, group: PromptGroup) -> list[str]:
        """What the group's conversations begin with before an answer, rendered two ways; nothing if nobody asks.

        Templates differ in what they write for an empty answer and for one that is to come, and may refuse one of
        them. Neither holds any of a completion, so that the longer common beginning is the right one.
        """
        if self.read_out.kind == "sequence":
            return []
        empty = conversation(group.prompt, "")
        ways = [(empty, False)] + ([(empty[:-1], True)] if len(empty) > 1 else [])
        texts: list[str] = []
        refused: list[CheckpointError] = []
        for messages, to_come in ways:
            try:
                texts.append(render(self.tokenizer, messages, add_generation_prompt=to_come))
            except CheckpointError as error:  # some templates refuse an empty answer, some to add one to such turns
                refused.append(error)
        if not texts:
            raise DataError(f"{group.name}: {refused[0].message}", hint=refused[0].hint) from refused[0]
        return texts

    def _readouts(self, group: PromptGroup, index: int, ids: list[int], num_completion_ids: int) -> tuple[int, ...]:
        """Where the head is read in one sequence."""
        completion = range(len(ids) - num_completion_ids, len(ids))
        if self.read_out.kind == "token":
            return tuple(completion)
        boundaries = tuple(position for position in completion if ids[position] == self._separator_id)
        if len(boundaries) != len(group.steps[index]):
            raise StepBoundaryError(
                f"{group.name}: completion {index} has {len(group.steps[index])} steps, and its ids {len(boundaries)} "
                "boundaries",
                hint="the chat template cuts or changes the separator; choose another step_separator",
            )
        return boundaries

    def _render(self, group: PromptGroup, messages: Sequence[Message]) -> str:
        try:
            return render(self.tokenizer, messages)
        except CheckpointError as error:
            raise DataError(f"{group.name}: {error.message}", hint=error.hint) from error

    def _fit(self, group: PromptGroup, index: int, ids: list[int] | None) -> list[int]:
        """One sequence cut to the maximum length; the same list if it fits. None is certainly too long."""
        if ids is not None and len(ids) <= self.max_length:
            return ids
        whole = conversation(group.prompt, group.completions[index])
        num_prompt = len(whole) - len(conversation("", group.completions[index]))
        prompt, completion = whole[:num_prompt], whole[num_prompt:]
        num_system = 1 if prompt and prompt[0].get("role") in ("system", "developer") else 0
        system, turns = prompt[:num_system], prompt[num_system:]
        # The fewest oldest turns whose loss makes it fit: from the newest on, twice as many each time, then by
        # bisection. So what is looked at is about as long as what is kept, however long the whole is.
        starts = _later_starts(turns)
        low, high, step = 0, len(starts), 1
        while low < high:
            middle = max(low, len(starts) - step) if step else (low + high) // 2
            (ids,) = self._tokenized([self._render(group, system + turns[starts[middle] :] + completion)])
            if ids is not None and len(ids) <= self.max_length:
                fitting, high, step = ids, middle, 2 * step
            else:
                low, step = middle + 1, 0
        if low < len(starts):
            return fitting
        turns = turns[starts[-1] :] if starts else turns
        # One prompt turn is left. What differs from the same conversation with that turn emptied is its content.
        emptied = tuple({**turn, "content": ""} for turn in turns)
        bare_text = self._render(group, system + emptied + completion)
        shortest, about = self.too_long(bare_text), "at least "
        # Twice as long, for around the emptied turn a few tokens may differ.
        if ids is not None or shortest <= 2 * self.max_length:
            about = ""
            ids = ids or tokenize(self.tokenizer, self._render(group, system + turns + completion))
            shortest = len(ids)
            if turns:
                bare = tokenize(self.tokenizer, bare_text)
                head = common_length(ids, bare)
                tail = min(common_length(ids[::-1], bare[::-1]), len(ids) - head, len(bare) - head)
                cut = len(ids) - self.max_length
                if cut <= len(ids) - head - tail:
                    return ids[:head] + ids[head + cut :]
                shortest = head + tail
        raise CompletionTooLongError(
            f"{group.name}: completion {index}{' and the system turn need' if system else ' needs'} {about}{shortest} "
            f"tokens even with the rest of the prompt cut away, and the maximum length is {self.max_length}",
            hint="raise max_length if the model allows it, or shorten what cannot be cut",
        )


def reason_of(error: DataError) -> str:
    """Why a group could not be encoded, as ledgers count it: ``"kind: detail"``."""
    kinds = {
        CompletionTooLongError: "completion too long",
        CompletionOfSeveralTurnsError: "completion of several turns",
        StepBoundaryError: "step boundaries unclear",
    }
    return f"{kinds.get(type(error), 'chat template refused')}: {error.message}"


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading ids all sequences share, clipped so that each keeps at least one id of its own.

    Args:
        sequences: One or more non-empty id sequences.
    """
    shortest = min(len(sequence) for sequence in sequences)
    # The lexicographic extremes differ first where any two sequences do.
    low, high = min(map(tuple, sequences)), max(map(tuple, sequences))
    return min(common_length(low, high), shortest - 1)


def common_length(first: Sequence[object], second: Sequence[object]) -> int:
    """How many leading ids, or characters, two sequences of one type share; they are compared at C speed.

    Args:
        first: One.
        second: The other, of the same type.
    """
    # Bisection over slices.
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _require_unicode(group: PromptGroup, texts: Sequence[str]) -> None:
    """Refuse half of a UTF-16 pair, as an escape in JSON brings it: tokenizers stop at it with a TypeError."""
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise LoneSurrogateError(
                f"{group.name}: lone surrogate in the conversation of completion {index}: {text[error.start]!a}",
                hint="decode the text with errors='replace'",
            ) from None


def _num_completion_ids(ids: Sequence[int], bare: Sequence[Sequence[int]]) -> int:
    """How many of a sequence's ids are the completion's: at least one, the end token."""
    return max(1, len(ids) - max((common_length(ids, other) for other in bare), default=0))


def _with_content(completion: Text, content: str) -> Text:
    """A completion with other words in it; of several turns, in the last."""
    if isinstance(completion, str):
        return content
    return (*completion[:-1], {**completion[-1], "content": content})


def _later_starts(turns: tuple[Message, ...]) -> list[int]:
    """Where a prompt can start later: at each further turn of the user's, as most templates want, and at the last."""
    starts = [i for i, message in enumerate(turns) if i and message.get("role") == "user"]
    last = len(turns) - 1
    return starts if last < 1 or starts[-1:] == [last] else [*starts, last]


def _chunks(groups: Sequence[PromptGroup]) -> Iterable[Sequence[PromptGroup]]:
    for start in range(0, len(groups), _CHUNK):
        yield groups[start : start + _CHUNK]
