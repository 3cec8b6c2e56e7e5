"""The core under every dialect: limits, all or nothing, and the server's scale."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from tests.serving.fixed_backend import FixedBackend

from rewardlab.calibration.reference import reference_statistics
from rewardlab.errors import ConfigError
from rewardlab.serving.failures import RequestRefused, ScoringFailed, Unavailable
from rewardlab.serving.items import Continued, Conversation, Ids, Item, ItemRefusal, ItemScore, Rendered
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.service import Scores, Service, failure_of
from rewardlab.serving.settings import ServerSettings


def service(backend: FixedBackend, **settings: Any) -> Service:
    return Service(backend, ServerSettings(**settings), Metrics())


def scores(backend: FixedBackend, items: Sequence[Item], **settings: Any) -> Scores:
    return asyncio.run(service(backend, **settings).scores(items))


TWO = [Conversation("p", "a"), Conversation("p", "b")]


def test_scores_come_in_order_with_the_model_and_the_tokens() -> None:
    found = scores(FixedBackend([ItemScore(2.5, 4), ItemScore(-1.0, 6)]), TWO)
    assert found.values == (2.5, -1.0)
    assert found.num_tokens == 10
    assert found.model.name == "rm"


def test_scores_are_on_the_servers_scale() -> None:
    """The reference scores 1 and 5 have mean 3 and deviation 2 (ddof 0); with T = 4, calibrated is (4 - 3) / 4."""
    about: dict[str, Any] = {"reference": reference_statistics([1.0, 5.0], "held-out"), "temperature": 4.0}
    results = [ItemScore(4.0, 1), ItemScore(3.0, 1)]
    assert scores(FixedBackend(results, **about), TWO, scale="z").values == (0.5, 0.0)
    assert scores(FixedBackend(results, **about), TWO, scale="calibrated").values == (0.25, 0.0)
    assert scores(FixedBackend(results, **about), TWO, scale="centered").values == (1.0, 0.0)


def test_a_scale_that_the_model_cannot_give_is_an_error_and_not_the_raw_score() -> None:
    with pytest.raises(ConfigError, match="needs a reference"):
        scores(FixedBackend(), TWO, scale="calibrated")


@pytest.mark.parametrize(
    ("kind", "failure"),
    [
        ("invalid", RequestRefused),
        ("step_boundary", RequestRefused),
        ("too_long", RequestRefused),
        ("not_finite", ScoringFailed),
        ("failed", ScoringFailed),
    ],
)
def test_one_item_without_a_score_fails_the_request_and_is_named(kind: Any, failure: type[Exception]) -> None:
    backend = FixedBackend([ItemScore(1.0, 1), ItemRefusal(kind, "because", "mend it")])
    with pytest.raises(failure, match="item 1: because") as caught:
        scores(backend, TWO)
    assert caught.value.param == "1"  # type: ignore[attr-defined]
    assert caught.value.hint == "mend it"  # type: ignore[attr-defined]


def test_answer_gives_each_item_its_own_result() -> None:
    results = (ItemScore(1.0, 1), ItemRefusal("too_long", "because"))
    answer = asyncio.run(service(FixedBackend(results)).answer(TWO))
    assert answer.results == results


def test_what_was_answered_is_counted() -> None:
    counted = service(FixedBackend([ItemScore(1.0, 1), ItemRefusal("too_long", "because")]))
    asyncio.run(counted.answer(TWO))
    text = counted.metrics.render().decode()
    assert 'rewardlab_items_total{result="scored"} 1.0' in text
    assert 'rewardlab_items_total{result="too_long"} 1.0' in text


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(RequestRefused, match="nothing to score"):
        scores(FixedBackend(), [])


def test_as_many_items_as_are_taken_pass_and_one_more_does_not() -> None:
    assert scores(FixedBackend(), TWO, max_items=2).values == (0.0, 1.0)
    backend = FixedBackend()
    with pytest.raises(RequestRefused, match="3 items in one request, and at most 2") as caught:
        scores(backend, [*TWO, Conversation("p", "c")], max_items=2)
    assert caught.value.status == 413
    assert backend.asked == []


TEN: list[Item] = [
    Conversation("12345", "67890"),
    Conversation(({"role": "user", "content": "1"},), "2"),  # a turn counts 8 more, so that empty ones do not pass
    Conversation("", "1", ("2",)),
    Rendered("1234567890"),
    Continued("1234", "567890"),
    Ids(tuple(range(10))),
]


@pytest.mark.parametrize("item", TEN, ids=lambda item: type(item).__name__)
def test_an_item_of_ten_passes_at_ten_and_not_at_nine(item: Item) -> None:
    assert scores(FixedBackend(), [item], max_chars=10).values == (0.0,)
    backend = FixedBackend()
    with pytest.raises(RequestRefused, match=r"item 0 has 10 (ids|characters), and at most 9") as caught:
        scores(backend, [item], max_chars=9)
    assert caught.value.status == 413
    assert backend.asked == []


def test_before_a_model_is_loaded_there_is_nothing_to_ask() -> None:
    backend = FixedBackend()
    backend.state, backend.reason = "loading", "reading the weights"
    with pytest.raises(Unavailable, match="reading the weights") as caught:
        scores(backend, TWO)
    assert caught.value.retry_after
    assert backend.asked == []


def test_the_backends_failures_pass_through() -> None:
    with pytest.raises(Unavailable, match="full"):
        scores(FixedBackend(failure=Unavailable("full")), TWO)


def test_failure_of_an_item_says_which() -> None:
    failure = failure_of(ItemRefusal("too_long", "200 tokens"), 3)
    assert (failure.status, failure.message, failure.param) == (400, "item 3: 200 tokens", "3")


def test_texts_in_another_template_are_told_at_first_and_then_at_each_thousandth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """700 + 700 + 700 pass 1000 and 2000; another model is told of anew; the texts themselves are not said."""
    backend = FixedBackend()
    asked = service(backend)

    def told(number: int) -> list[str]:
        caplog.clear()
        backend.results = [ItemScore(1.0, 3, unlike_template=True)] * number
        asyncio.run(asked.answer([Rendered("secret")] * max(number, 1)))
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        return [record.getMessage().split()[0] for record in caplog.records if record.name == "rewardlab.serving"]

    assert told(0) == []
    assert [told(700) for _ in range(3)] == [["700"], ["1400"], ["2100"]]
    assert told(1) == []
    backend.info = replace(backend.info, fingerprint="new")
    assert told(1) == ["1"]
    assert "secret" not in caplog.text
