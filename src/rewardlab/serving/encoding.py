"""Items -> token ids: the one place where the server's four kinds of items become what a model reads.

A conversation goes the way of :meth:`Scorer.score <rewardlab.scoring.scorer.Scorer.score>`: the same reading, the same
template, the same truncation. Text that is already rendered is tokenised once, as
:mod:`rewardlab.serving.rendered_text` has made it; ids are taken as they are. Each item becomes a group of its own, so
that what is wrong with one touches no other: the engine finds shared prefixes in the ids themselves.

This file knows a scorer's encoder and its models' vocabulary; it computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.formats import scored_text
from rewardlab.data.template import render, tokenize
from rewardlab.errors import CompletionTooLongError, DataError, StepBoundaryError
from rewardlab.scoring.ensemble_encoding import EncodedForMembers, EnsembleEncoder
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.items import Continued, Conversation, Ids, Item, ItemRefusal, RefusalKind, Rendered
from rewardlab.serving.rendered_text import RenderedText, special_tokens
from rewardlab.types import PromptGroup, Step, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")

_NAME = "item"
_OF_IDS = PromptGroup("", ("",), source=_NAME)  # stands for text of which no prompt and completion can be told
_UNLIKE_TEMPLATE = PromptGroup("", ("",), source=_NAME, id="unlike the template")
_LONGEST_MESSAGE = 300  # of a refusal: a template's own words, or a list of roles, are the client's to choose


class ItemEncoder:
    """Turns items into ids.

    Args:
        scorer: The scorer that will score them.

    Attributes:
        reads_rendered: Why rendered text and ids cannot be scored; empty where they can.
        vocabulary_size: Ids lie below this: the rows of the smallest embedding.
        max_length: Longest sequence in tokens.
        rendered_example: As :class:`~rewardlab.serving.items.ModelInfo` has it.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._encoder = scorer.encoder
        self._encoders = self._encoder.encoders if isinstance(self._encoder, EnsembleEncoder) else (self._encoder,)
        self._one = self._encoders[0]
        self.max_length = self._encoder.max_length
        self.vocabulary_size = min(vocabulary_size(each.model) for each in scorer.checkpoints)
        self.reads_rendered = _reads_rendered(self._encoders)
        separator = self._one.read_out.separator
        self._separator_id = None if separator is None else tokenize(self._one.tokenizer, separator)[0]
        self._rendered = RenderedText(self._one.tokenizer, _pads(scorer), separator)
        self.rendered_example = "" if self.reads_rendered else _rendered_example(self._one)

    def encode(self, items: Sequence[Item]) -> list[EncodedGroup | DataError]:
        """Ids of each item, a group of one sequence; an item that cannot be read gives its error in place.

        Args:
            items: The items.
        """
        found: dict[int, EncodedGroup | DataError] = {}
        groups: dict[int, PromptGroup] = {}
        texts: dict[int, Rendered] = {}
        for place, item in enumerate(items):
            try:
                if isinstance(item, Continued):
                    item = self.settled(item)
                if isinstance(item, Ids):
                    found[place] = self._of_ids(item)
                elif isinstance(item, Rendered):
                    texts[place] = self._prepared(item)
                else:
                    groups[place] = self._group(item)
            except Exception as error:
                found[place] = _as_data_error(error)
        found.update(zip(groups, _each_alone(self._encoder.encode_many, list(groups.values())), strict=True))
        found.update(zip(texts, _each_alone(self._tokenised, list(texts.values())), strict=True))
        return [found[place] for place in range(len(items))]

    def settled(self, item: Continued) -> Rendered | Conversation:
        """What a prompt and its continuation are.

        A prompt is rendered if it begins as this model's template begins a conversation: with the begin token, or with
        the line that opens a user's or a system's turn, where that is no mere word. Then it and the response are one
        text. Else, and where it is messages, the two are a conversation: the template itself writes the end token that
        a response may come with.
        """
        if isinstance(item.prompt, str) and self._rendered.is_start(item.prompt):
            return Rendered(item.prompt + item.response)
        return Conversation(item.prompt, self._rendered.without_end(item.response))

    # -- conversations -------------------------------------------------------------------------------------------------

    def _group(self, item: Conversation) -> PromptGroup:
        prompt, completion = scored_text(item.prompt, item.completion)
        if item.steps and any(each.read_out.separator is None for each in self._encoders):
            raise DataError("steps were given, and this is no process model", hint="send the completion as one text")
        steps = (tuple(map(Step, item.steps)),) if item.steps else ()
        return PromptGroup(prompt, (completion,), steps=steps, source=_NAME)

    # -- rendered text and ids -----------------------------------------------------------------------------------------

    def _prepared(self, item: Rendered) -> Rendered:
        self._require_reads_rendered()
        if self._rendered.is_empty(item.text):
            raise DataError("the text is empty", hint="send the whole conversation as the chat template renders it")
        if item.cut_to is not None and item.cut_to < 1:
            raise DataError(f"cut to {item.cut_to} tokens: expected at least 1")
        return Rendered(self._rendered.as_own(item.text), item.cut_to)

    def _tokenised(self, items: Sequence[Rendered]) -> list[EncodedGroup | DataError]:
        too_long = [0 if item.cut_to else self._one.too_long(item.text) for item in items]
        texts = [item.text for item, least in zip(items, too_long, strict=True) if not least]
        # verbose=False: the tokenizer would warn of lengths that are refused just below.
        ids = iter(self._one.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else ())
        found: list[EncodedGroup | DataError] = []
        for item, least in zip(items, too_long, strict=True):
            if least:
                found.append(_too_long(f"at least {least}", self.max_length))
                continue
            own = next(ids)
            group = _UNLIKE_TEMPLATE if self._rendered.is_unlike(item.text) else _OF_IDS
            try:
                found.append(self._fitted(tuple(own), item.cut_to, group))
            except DataError as error:
                found.append(error)
        return found

    def _fitted(self, ids: tuple[int, ...], cut_to: int | None, group: PromptGroup) -> EncodedGroup:
        longest = self.max_length if cut_to is None else min(cut_to, self.max_length)
        if len(ids) <= longest:
            return self._sequence(ids, group)
        if cut_to is None:
            raise _too_long(str(len(ids)), longest)
        begin = 1 if self._rendered.begin and longest > 1 else 0
        cut = ids[:begin] + ids[len(ids) - longest + begin :]
        if self._separator_id is not None and cut.count(self._separator_id) < ids.count(self._separator_id):
            raise CompletionTooLongError(
                f"cut to {longest} of its {len(ids)} tokens the text would lose steps", hint="send messages"
            )
        return self._sequence(cut, group, truncated=True)

    def _of_ids(self, item: Ids) -> EncodedGroup:
        self._require_reads_rendered()
        ids = item.ids
        if not ids:
            raise DataError("there are no ids", hint="send at least one")
        if len(ids) > self.max_length:
            raise CompletionTooLongError(
                f"{len(ids)} ids, and at most {self.max_length} are read", hint="cut the oldest part of the prompt"
            )
        if wrong := [i for i in ids if type(i) is not int or not 0 <= i < self.vocabulary_size]:
            raise DataError(
                f"{str(wrong[0])[:20]} is no id of this model's",
                hint=f"ids are whole numbers from 0 to {self.vocabulary_size - 1}",
            )
        return self._sequence(ids)

    def _sequence(self, ids: tuple[int, ...], group: PromptGroup = _OF_IDS, *, truncated: bool = False) -> EncodedGroup:
        readouts: tuple[tuple[int, ...], ...] = ()
        if self._separator_id is not None:
            positions = tuple(place for place, own in enumerate(ids) if own == self._separator_id)
            if not positions:
                raise StepBoundaryError(
                    f"there is no step separator {self._one.read_out.separator} to read a step at",
                    hint="put it after every step, or send messages with their steps",
                )
            readouts = (positions,)
        one = EncodedGroup(group, (ids,), len(ids) - 1, int(truncated), readouts)
        if not isinstance(self._encoder, EnsembleEncoder):
            return one
        return EncodedForMembers(
            one.group, one.sequences, one.prefix_length, one.truncated, one.readouts, by_encoder=(one,)
        )

    def _require_reads_rendered(self) -> None:
        if self.reads_rendered:
            raise DataError(
                f"this model cannot score text that is already rendered: {self.reads_rendered}",
                hint="send messages, or prompt and completion",
            )


def refusal_of(error: DataError) -> ItemRefusal:
    """A refusal of an item that could not be encoded, in words about that item."""
    message = error.message.removeprefix(f"{_NAME}: ").replace("completion 0", "the completion")
    if len(message) > _LONGEST_MESSAGE:
        message = message[:_LONGEST_MESSAGE] + "..."
    kind: RefusalKind = "invalid"
    if isinstance(error, CompletionTooLongError):
        kind = "too_long"
    elif isinstance(error, StepBoundaryError):
        kind = "step_boundary"
    # What one gives a scorer, one gives a server by its option.
    return ItemRefusal(kind, message, error.hint.replace("raise max_length", "raise --max-length of the server"))


def is_unlike_template(encoded: EncodedGroup) -> bool:
    """Whether it was a rendered text that does not begin as the model's template does."""
    return encoded.group == _UNLIKE_TEMPLATE


def _too_long(num_tokens: str, longest: int) -> CompletionTooLongError:
    return CompletionTooLongError(
        f"the rendered text has {num_tokens} tokens, and at most {longest} are read",
        hint="send messages, or prompt and completion: of those the oldest turns can be cut; or keep prompt and answer "
        f"together within {longest} tokens",
    )


def vocabulary_size(model: PreTrainedModel) -> int:
    """Rows of a model's input embedding."""
    weight: Any = model.get_input_embeddings().weight
    return len(weight)


def _reads_rendered(encoders: Sequence[Encoder]) -> str:
    """Why rendered text and ids cannot be read; empty where they can."""
    if len(encoders) > 1:
        return "its members read different ids, and a rendered text is one member's own"
    if encoders[0].read_out.kind == "token":
        return "it reads every token of the completion, and a rendered text does not tell where that begins"
    return ""


def _rendered_example(encoder: Encoder) -> str:
    group = encoder.marked(PromptGroup("What is the capital of France?", ("Paris.",)))
    return render(encoder.tokenizer, conversation(group.prompt, group.completions[0]))


def _pads(scorer: Scorer) -> tuple[str, ...]:
    """The texts with which the scorer's models pad; only special tokens, for others can be part of a text."""
    tokenizer = scorer.encoder.tokenizer
    known = special_tokens(tokenizer)
    ids = {each.model.config.get_text_config().pad_token_id for each in scorer.checkpoints} | {tokenizer.pad_token_id}
    pads = [str(tokenizer.convert_ids_to_tokens(number)) for number in sorted(ids - {None})]
    return tuple(pad for pad in pads if pad in known)


def _each_alone(
    encode: Callable[[Sequence[T]], list[EncodedGroup | DataError]], items: Sequence[T]
) -> list[EncodedGroup | DataError]:
    """What some items give together; where that raises, each by itself: a template's code may raise anything."""
    if not items:
        return []
    try:
        return encode(items)
    except Exception as error:
        if len(items) == 1:
            return [_as_data_error(error)]
    return [one for item in items for one in _each_alone(encode, [item])]


def _as_data_error(error: Exception) -> DataError:
    if isinstance(error, DataError):
        return error
    return DataError(
        f"it cannot be turned into tokens ({type(error).__name__})",
        hint="send role and content of each message, as the chat template expects them",
    )
