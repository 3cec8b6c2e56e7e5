"""An encoder whose tokenizer is elsewhere: it has groups scored by a server, and gives what came back in place of ids.

Callers encode groups, sort out what cannot be encoded, and score the others. Only the server can tell what fits its
model, so here encoding already asks it for everything, and scoring reads what it said. One bad completion stays alone,
with the error it has in-process.

This file knows groups and a client; it knows no ids.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias, cast

from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.errors import (
    CompletionOfSeveralTurnsError,
    CompletionTooLongError,
    ConfigError,
    DataError,
    LoneSurrogateError,
    StepBoundaryError,
)
from rewardlab.serving.client import Reward, RewardClient, Unscored
from rewardlab.serving.items import Conversation, num_chars
from rewardlab.types import PromptGroup, Text, messages_of, text_key, text_of

Progress: TypeAlias = Callable[[int], None]


class UnknownIds(Sequence[int]):
    """Token ids of which only the number is known; asking for one raises ConfigError.

    Args:
        length: How many.
    """

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        """How many ids there are."""
        return self._length

    def __getitem__(self, index: Any) -> NoReturn:
        """No id is known here."""
        raise not_here("token ids")


@dataclass(frozen=True, slots=True)
class EncodedRemotely(EncodedGroup):
    """A group that the server has scored: numbers of tokens are known, ids are not.

    Attributes:
        results: What the server said of each completion.
    """

    results: tuple[Reward | Unscored, ...] = ()


class RemoteEncoder(Encoder):
    """Has groups scored by a server; in place of ids it gives what came back.

    What was asked is remembered: callers sort out the rows that can be read and then have those scored, or ask again
    for each completion of a group alone.

    Args:
        client: The client.
        info: The server's ``/info``.
        remember: Completions whose result is remembered; the least recently used go first.

    Attributes:
        max_length: The server's model's.
    """

    def __init__(self, client: RewardClient, info: dict[str, Any], remember: int = 65_536) -> None:
        model, limits = info["model"], info["limits"]
        self.max_length = int(model["max_length"])
        self._client, self._kind, self._fingerprint = client, model["kind"], model["fingerprint"]
        self._max_chars = int(limits["max_chars"])
        self._remember = remember
        self._known: OrderedDict[bytes, Reward | Unscored] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def tokenizer(self) -> NoReturn:  # type: ignore[override]
        """Not over HTTP: raises ConfigError."""
        raise not_here("the tokenizer")

    @property
    def read_out(self) -> NoReturn:  # type: ignore[override]
        """Not over HTTP: raises ConfigError."""
        raise not_here("where the model is read")

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled or copied remembers nothing."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_known", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._known, self._lock = OrderedDict(), threading.Lock()

    def encode_many(
        self, groups: Sequence[PromptGroup], on_progress: Progress | None = None
    ) -> list[EncodedGroup | DataError]:
        """What the server says of many groups, in order; a group that it cannot read gives its error in place.

        Args:
            groups: The groups.
            on_progress: Called with the number of groups once all are known.

        Raises:
            ServerError: There is no answer that can be used.
        """
        found = self.results_of(groups)
        if on_progress is not None:
            on_progress(len(groups))
        return found

    def results_of(
        self, groups: Sequence[PromptGroup], on_progress: Progress | None = None
    ) -> list[EncodedGroup | DataError]:
        """As :meth:`encode_many`.

        Args:
            groups: The groups.
            on_progress: Called with the number of completions just answered.

        Raises:
            ServerError: There is no answer that can be used.
        """
        found: dict[int, EncodedGroup | DataError] = {}
        asked: dict[int, list[bytes]] = {}
        items: dict[bytes, tuple[Text, Text, list[str] | None]] = {}
        for number, group in enumerate(groups):
            try:
                self._require_readable(group)
            except DataError as error:
                found[number] = error
                continue
            own = [self._item(group, index) for index in range(len(group.completions))]
            asked[number] = [_key(item) for item in own]
            items.update(zip(asked[number], own, strict=True))
        results = self._answered(items, on_progress)
        for number, keys in asked.items():
            found[number] = self._encoded(groups[number], tuple(results[key] for key in keys))
        return [found[number] for number in range(len(groups))]

    def _require_readable(self, group: PromptGroup) -> None:
        """Refuse, as an encoder does, what the server would refuse with all that is asked at the same time."""
        for index, completion in enumerate(group.completions):
            text = text_of(completion)
            steps = [step.text for step in group.steps[index]] if group.steps else []
            try:
                "".join((text_of(group.prompt), text, *steps)).encode()
            except UnicodeEncodeError as error:
                raise LoneSurrogateError(
                    f"{group.name}: lone surrogate in the conversation of completion {index}: "
                    f"{error.object[error.start]!a}",
                    hint="decode the text with errors='replace'",
                ) from None
            if self._kind == "token" and not isinstance(completion, str) and len(completion) > 1:
                raise CompletionOfSeveralTurnsError(
                    f"{group.name}: completion {index} has several turns, and each of its tokens would be read",
                    hint="put all turns but the last into the prompt",
                )
            prompt, _, own_steps = self._item(group, index)
            size = num_chars(Conversation(prompt, completion, tuple(own_steps or ())))
            if size > self._max_chars:
                kind = (
                    DataError if 2 * num_chars(Conversation(prompt, "")) > self._max_chars else CompletionTooLongError
                )
                raise kind(
                    f"{group.name}: completion {index} and its prompt have {size} characters, and the server takes "
                    f"{self._max_chars}",
                    hint="serve with a larger --max-chars, if the model reads such lengths",
                )

    def _item(self, group: PromptGroup, index: int) -> tuple[Text, Text, list[str] | None]:
        """What is sent for one completion.

        A prompt that is text goes as a message: the server would read an hh-rlhf transcript as its turns, and this one
        has been read already. Steps go to process models alone, as no other reads them.
        """
        prompt = messages_of(group.prompt, role="user") if group.prompt else ""
        steps = [step.text for step in group.steps[index]] if group.steps and self._kind == "step" else None
        return prompt, group.completions[index], steps or None

    def _answered(
        self, items: dict[bytes, tuple[Text, Text, list[str] | None]], on_progress: Progress | None
    ) -> dict[bytes, Reward | Unscored]:
        """What the server says of each item; what it has said before is not asked again."""
        with self._lock:
            known = {key: self._known[key] for key in items if key in self._known}
            for key in known:
                self._known.move_to_end(key)
        if known and on_progress is not None:
            on_progress(len(known))
        new = [key for key in items if key not in known]
        results = self._client.rewards(
            [items[key][0] for key in new],
            [items[key][1] for key in new],
            [items[key][2] for key in new],
            fingerprint=self._fingerprint,
            on_progress=on_progress,
        )
        fresh = dict(zip(new, results, strict=True))
        lasting = {key: one for key, one in fresh.items() if isinstance(one, Reward) or one.kind in _OF_THE_TEXT}
        with self._lock:
            self._known.update(lasting)
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        return known | fresh

    def _encoded(self, group: PromptGroup, results: tuple[Reward | Unscored, ...]) -> EncodedGroup | DataError:
        for index, result in enumerate(results):
            if isinstance(result, Unscored) and result.kind in _OF_THE_TEXT:
                return self._error(group, index, result)
        rewards = [result for result in results if isinstance(result, Reward)]
        lengths = [result.num_tokens if isinstance(result, Reward) else 0 for result in results]
        return EncodedRemotely(
            group,
            cast(tuple[tuple[int, ...], ...], tuple(map(UnknownIds, lengths))),
            prefix_length=0,
            truncated=sum(reward.truncated for reward in rewards),
            results=results,
        )

    def _error(self, group: PromptGroup, index: int, result: Unscored) -> DataError:
        """The error that an encoder has."""
        kind = _OF_THE_TEXT[result.kind]
        message, which = result.message, f"completion {index}"
        told = message.replace("the completion", which, 1)  # the server knows of one
        return kind(f"{group.name}: {told if told != message else f'{which}: {message}'}", hint=result.hint)


_OF_THE_TEXT: dict[str, type[DataError]] = {
    "invalid": DataError,
    "step_boundary": StepBoundaryError,
    "too_long": CompletionTooLongError,
}
"""Kinds of Unscored that are the text's own fault, and will be the same tomorrow; and the error that an encoder has."""


def _key(item: tuple[Text, Text, list[str] | None]) -> bytes:
    prompt, completion, steps = item
    parts = (text_key(prompt, role="user"), text_key(completion, role="assistant"), repr(steps))
    return hashlib.sha256("\0".join(parts).encode()).digest()


def not_here(what: str) -> ConfigError:
    """The error of whoever asks for a part of a model that is on a server.

    Args:
        what: What was asked for.
    """
    return ConfigError(
        f"{what}: not known here, for the model is on a server",
        hint="load the checkpoint here instead: Scorer.from_pretrained(DIR)",
    )
