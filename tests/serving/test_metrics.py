"""What is counted, read back from the text that Prometheus reads, by its own parser."""

from __future__ import annotations

from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families
from tests.serving.fixed_backend import FixedBackend

from rewardlab.serving.items import Answer, ItemRefusal, ItemScore
from rewardlab.serving.messages import Work
from rewardlab.serving.metrics import Metrics

INFO = FixedBackend().info


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_status_and_timed_by_route() -> None:
    """Of 0.02 s and 0.2 s, one is at most 0.025 s, both at most 0.25 s, and together they are 0.22 s."""
    metrics = Metrics()
    metrics.request("/v1/rewards", 200, 0.02)
    metrics.request("/v1/rewards", 503, 0.2)
    found = samples(metrics)
    route = ("route", "/v1/rewards")
    assert found["rewardlab_requests_total", (route, ("status", "200"))] == 1
    assert found["rewardlab_requests_total", (route, ("status", "503"))] == 1
    assert found["rewardlab_request_seconds_bucket", (("le", "0.025"), route)] == 1
    assert found["rewardlab_request_seconds_bucket", (("le", "0.25"), route)] == 2
    assert abs(found["rewardlab_request_seconds_sum", (route,)] - 0.22) < 1e-12


def test_items_are_counted_by_what_became_of_them_and_only_scores_are_observed() -> None:
    metrics = Metrics()
    scores = (ItemScore(-30.0, 3), ItemScore(0.25, 3), ItemRefusal("too_long", "x"), ItemRefusal("not_finite", "x"))
    metrics.scored(Answer(scores, INFO))
    found = samples(metrics)
    items = {labels: value for (name, labels), value in found.items() if name == "rewardlab_items_total"}
    counted = {dict(labels)["result"]: value for labels, value in items.items()}
    assert counted == {"scored": 2, "too_long": 1, "not_finite": 1}
    assert found["rewardlab_scores_count", ()] == 2
    assert found["rewardlab_scores_bucket", (("le", "-20.0"),)] == 1
    assert found["rewardlab_scores_bucket", (("le", "0.5"),)] == 2


def test_tokens_saved_are_those_given_less_those_computed_and_never_fall() -> None:
    """100 - 40, and 0 for a padded batch that computed more than it was given: 60."""
    metrics = Metrics()
    metrics.batch(8, 0.35, Work(tokens_given=100, tokens_computed=40, seconds=0.03))
    metrics.batch(1, 0.01, Work(tokens_given=10, tokens_computed=16, seconds=0.003))
    found = samples(metrics)
    assert found["rewardlab_tokens_given_total", ()] == 110
    assert found["rewardlab_tokens_computed_total", ()] == 56
    assert found["rewardlab_tokens_saved_total", ()] == 60
    assert found["rewardlab_batch_items_sum", ()] == 9
    assert found["rewardlab_batch_fill_bucket", (("le", "0.3"),)] == 1
    assert found["rewardlab_batch_seconds_count", ()] == 2


def test_the_queue_and_the_workers_restarts() -> None:
    metrics = Metrics()
    metrics.waiting(7)
    metrics.waiting(2)
    metrics.worker_restarted("died")
    found = samples(metrics)
    assert found["rewardlab_queue_items", ()] == 2
    assert found["rewardlab_worker_restarts_total", (("reason", "died"),)] == 1


def test_after_a_reload_only_the_new_model_is_named() -> None:
    metrics = Metrics()
    metrics.model(INFO)
    metrics.model(replace(INFO, fingerprint="new", contract_sha256=None))
    models = [dict(labels) for name, labels in samples(metrics) if name == "rewardlab_model_info"]
    assert [(model["fingerprint"], model["contract_sha256"]) for model in models] == [("new", "")]
    assert INFO.path not in metrics.render().decode()


def test_two_applications_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.waiting(3)
    assert samples(other)["rewardlab_queue_items", ()] == 0


def test_rendered_texts_in_another_template_are_counted() -> None:
    metrics = Metrics()
    assert samples(metrics)["rewardlab_items_unlike_template_total", ()] == 0
    scores = (ItemScore(1.0, 3), ItemScore(1.0, 3, unlike_template=True), ItemRefusal("invalid", "x"))
    metrics.scored(Answer(scores, INFO))
    metrics.scored(Answer(scores, INFO))
    assert samples(metrics)["rewardlab_items_unlike_template_total", ()] == 2
