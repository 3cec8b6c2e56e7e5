"""What a server counts for drift: whole, of one model at a time, and read back as a histogram."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tests.serving.fixed_backend import FixedBackend

from rewardlab.calibration.reference import reference_statistics
from rewardlab.metrics.histograms import DISAGREEMENT_GRID, TOKEN_GRID, Histogram, score_grid
from rewardlab.serving.distributions import Distributions
from rewardlab.serving.items import Answer, ItemRefusal, ItemScore

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

INFO = replace(FixedBackend().info, reference=reference_statistics([-1.0, 0.0, 4.0], "held-out"))


def test_what_is_counted_are_the_histograms_of_the_items() -> None:
    found = Distributions()
    found.model(INFO)
    found.scored(Answer((ItemScore(0.5, 7), ItemScore(-3.25, 90, disagreement=0.3)), INFO))
    found.scored(Answer((ItemRefusal("too_long", "x"), ItemScore(0.5, 8, disagreement=0.1)), INFO))
    record = found.to_dict()
    assert INFO.reference is not None
    edges = score_grid(INFO.reference.mean, INFO.reference.std)
    assert Histogram.from_dict(record["scores"]) == Histogram.of(edges, [0.5, -3.25, 0.5])
    assert Histogram.from_dict(record["tokens"]) == Histogram.of(TOKEN_GRID, [7, 90, 8])
    counted = Histogram.from_dict(record["disagreement"])
    assert counted.counts == Histogram.of(DISAGREEMENT_GRID, [0.3, 0.1]).counts


def test_another_model_begins_anew_and_late_answers_of_the_one_before_are_not_its_own() -> None:
    found, other = Distributions(), replace(INFO, fingerprint="other", reference=None)
    found.scored(Answer((ItemScore(0.5, 7),), INFO))  # the first answer tells the model where nobody has
    first = found.to_dict()
    found.model(INFO)
    assert found.to_dict() == first  # the same model, loaded again
    found.model(other)
    found.scored(Answer((ItemScore(0.5, 7),), INFO))
    second = found.to_dict()
    assert second["id"] != first["id"]
    assert second["fingerprint"] == "other"
    assert Histogram.from_dict(second["scores"]) == Histogram.of(score_grid())


def test_the_route_tells_what_the_clients_were_answered(client: TestClient) -> None:
    before = client.get("/v1/distributions").json()
    answer = client.post("/v1/rewards", json={"prompt": "2+2?", "completions": ["4", "five"]}).json()
    after = client.get("/v1/distributions").json()
    scores = [result["raw"] for result in answer["results"]]
    edges = Histogram.from_dict(after["scores"]).edges
    window = Histogram.from_dict(after["scores"])
    if before["id"] == after["id"]:
        window = window - Histogram.from_dict(before["scores"])
    assert window.counts == Histogram.of(edges, scores).counts
    assert after["fingerprint"] == client.get("/v1/models").json()["data"][0]["fingerprint"]
