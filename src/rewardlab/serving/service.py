"""The one core under every dialect: items in, scores on the server's scale out, or one failure for the request."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from rewardlab.serving.backend import Backend
from rewardlab.serving.failures import RequestFailure, RequestRefused, ScoringFailed, Unavailable
from rewardlab.serving.items import Answer, Ids, Item, ItemRefusal, ItemScore, ModelInfo, num_chars
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings

logger = logging.getLogger("rewardlab.serving")

_WARN_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one request's items.

    Attributes:
        values: On the server's scale, in the order of the items.
        results: What the model said of each.
        model: The model.
    """

    values: tuple[float, ...]
    results: tuple[ItemScore, ...]
    model: ModelInfo

    @property
    def num_tokens(self) -> int:
        """Tokens of all items, as ``usage`` counts them."""
        return sum(result.num_tokens for result in self.results)


class Service:
    """What a dialect calls.

    Args:
        backend: Scores items.
        settings: The server's settings.
        metrics: Where what happens is counted.
    """

    def __init__(self, backend: Backend, settings: ServerSettings, metrics: Metrics) -> None:
        self.backend, self.settings, self.metrics = backend, settings, metrics
        self._num_unlike = 0  # rendered texts in another template
        self._warned_of = ""  # the model that they were for

    def model(self) -> ModelInfo:
        """The model in use.

        Raises:
            Unavailable: None is loaded yet.
        """
        if self.backend.model is None:
            raise Unavailable(f"no model is loaded: {self.backend.reason or self.backend.state}", retry_after=5)
        return self.backend.model

    async def answer(self, items: Sequence[Item]) -> Answer:
        """Each item's own result: for answers that can say of each item why it has no score.

        Raises:
            RequestRefused: No items, too many, or one over the limits.
            Unavailable: As the backend.
        """
        self._require_within_limits(items)
        self.model()
        answer = await self.backend.score(items)
        self.metrics.scored(answer)
        self._warn_of_other_templates(answer)
        return answer

    async def scores(self, items: Sequence[Item]) -> Scores:
        """All scores, on the server's scale, or one failure: for dialects whose answers are numbers alone.

        Raises:
            RequestRefused: As :meth:`answer`; or an item cannot be scored as it is, named by its number.
            ScoringFailed: The model gives an item no finite score.
            Unavailable: As the backend.
        """
        answer = await self.answer(items)
        results = []
        for number, result in enumerate(answer.results):
            if isinstance(result, ItemRefusal):
                raise failure_of(result, number)
            results.append(result)
        values = answer.model.scale.transform([result.score for result in results], self.settings.scale)
        return Scores(tuple(values), tuple(results), answer.model)

    def _warn_of_other_templates(self, answer: Answer) -> None:
        """Say once, and then every so often, that texts come in another model's chat template; never what they say."""
        unlike = sum(isinstance(result, ItemScore) and result.unlike_template for result in answer.results)
        if not unlike:
            return
        if self._warned_of != answer.model.fingerprint:
            self._warned_of, self._num_unlike = answer.model.fingerprint, 0
        before, self._num_unlike = self._num_unlike, self._num_unlike + unlike
        if before == 0 or before // _WARN_EVERY < self._num_unlike // _WARN_EVERY:
            logger.warning(
                "%d rendered texts so far do not begin as the chat template of %s does, and their scores mean little: "
                "render with its own tokenizer, or send messages",
                self._num_unlike,
                answer.model.name,
            )

    def _require_within_limits(self, items: Sequence[Item]) -> None:
        if not items:
            raise RequestRefused("there is nothing to score", hint="send at least one item")
        if len(items) > self.settings.max_items:
            raise RequestRefused(
                f"{len(items)} items in one request, and at most {self.settings.max_items} are taken",
                hint="send them in several requests; the server gathers them again",
                status=413,
            )
        for number, item in enumerate(items):
            if (size := num_chars(item)) > self.settings.max_chars:
                what = "ids" if isinstance(item, Ids) else "characters"
                raise RequestRefused(
                    f"item {number} has {size} {what}, and at most {self.settings.max_chars} are taken",
                    hint="raise --max-chars if the model reads such lengths",
                    status=413,
                )


def failure_of(refusal: ItemRefusal, number: int) -> RequestFailure:
    """The failure of a request one of whose items has no score.

    Args:
        refusal: Why it has none.
        number: Which item it is.
    """
    kind: type[RequestFailure] = (
        RequestRefused if refusal.kind in ("invalid", "step_boundary", "too_long") else ScoringFailed
    )
    return kind(f"item {number}: {refusal.message}", hint=refusal.hint, param=str(number))
