"""The native dialect: its numbers against ``Scorer``, ``ScoreScale`` and arithmetic by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.scale import SCALES
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.app import create_app
from rewardlab.serving.backend import Backend
from rewardlab.serving.failures import Unavailable
from rewardlab.serving.items import Conversation, ItemRefusal, ItemScore
from rewardlab.serving.protocols.native import RewardsAnswer
from rewardlab.serving.settings import ServerSettings
from rewardlab.types import PromptGroup, Step

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}]
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: 2+2?"
PROMPTS: list[Any] = ["What is 2 + 2?", MESSAGES, "", "Name a colour.", TRANSCRIPT]
COMPLETIONS: list[Any] = ["4", "It is 4.", "once upon a time", [{"role": "assistant", "content": "Blue"}], "4"]


@contextmanager
def client_of(backend: Backend, **settings: Any) -> Iterator[TestClient]:
    with TestClient(create_app(backend, ServerSettings(**settings)), raise_server_exceptions=False) as client:
        yield client


def answer(backend: Backend, path: str, body: Any, status: int = 200, **settings: Any) -> Any:
    with client_of(backend, **settings) as client:
        response = client.post(path, json=body)
    assert response.status_code == status, response.text
    return response.json()


@pytest.fixture(scope="module")
def untouched() -> Iterator[tuple[FixedBackend, TestClient]]:
    """A backend that is asked for nothing, behind one application."""
    backend = FixedBackend()
    with client_of(backend) as client:
        yield backend, client


# -- /v1/rewards -----------------------------------------------------------------------------------------------------


def test_rewards_are_the_scorers_in_every_form_of_prompt_and_completion(client: TestClient, scorer: Scorer) -> None:
    response = client.post("/v1/rewards", json={"prompts": PROMPTS, "completions": COMPLETIONS})
    assert response.status_code == 200, response.text
    body = response.json()
    RewardsAnswer.model_validate(body)
    raw = [result["raw"] for result in body["results"]]
    assert raw == pytest.approx(scorer.score(PROMPTS, COMPLETIONS), abs=1e-5)
    assert [result["index"] for result in body["results"]] == list(range(5))
    assert body["fingerprint"] == scorer.fingerprint
    assert body["model"] == "rm"
    assert body["object"] == "list"
    assert body["usage"]["num_items"] == 5
    assert body["usage"]["num_tokens"] == sum(result["num_tokens"] for result in body["results"]) > 5


def test_rewards_are_in_every_scale_of_the_models_contract(client: TestClient, scorer: Scorer) -> None:
    results = client.post("/v1/rewards", json={"prompts": PROMPTS, "completions": COMPLETIONS}).json()["results"]
    raw = scorer.score(PROMPTS, COMPLETIONS)
    contract = scorer.contract
    assert contract is not None
    assert contract.scale.reference is not None
    for scale in ("raw", "centered", "z", "percentile"):
        given = [result[scale] for result in results]
        assert given == pytest.approx(contract.scale.transform(raw, scale), abs=2e-3 if scale == "percentile" else 1e-4)
    assert all((result["calibrated"] is None) == (contract.scale.temperature is None) for result in results)


def test_one_prompt_for_many_completions_is_that_prompt_each_time() -> None:
    backend = FixedBackend()
    answer(backend, "/v1/rewards", {"prompt": "p", "completions": ["a", "b"]})
    answer(backend, "/v1/rewards", {"prompts": ["p", "p"], "completions": ["a", "b"]})
    assert backend.asked == [(Conversation("p", "a"), Conversation("p", "b"))] * 2


def test_messages_travel_with_their_further_keys() -> None:
    backend = FixedBackend()
    turn = {"role": "user", "content": "p", "name": "Ann"}
    answer(backend, "/v1/rewards", {"prompt": [turn], "completions": ["a"]})
    assert backend.asked == [(Conversation((turn,), "a"),)]


@pytest.mark.parametrize("form", [{"prompt": MESSAGES}, {"prompt": "p"}])
def test_one_prompt_for_many_completions_is_one_object(form: Any) -> None:
    """The queue works out what a prompt begins with once per object: a thousand long equal ones would hold it up."""
    backend = FixedBackend()
    answer(backend, "/v1/rewards", {**form, "completions": ["a", "b", "c"]})
    (items,) = backend.asked
    assert len({id(item.prompt) for item in items if isinstance(item, Conversation)}) == 1


def test_scales_by_hand() -> None:
    """The reference scores 1 and 5 have mean 3, deviation 2 (ddof 0) and median 3; T = 4.

    Of 4: centered 1, z 1/2, calibrated 1/4; halfway between the median and the largest it lies at 75 of 100.
    """
    backend = FixedBackend([ItemScore(4.0, 7)], reference=reference_statistics([1.0, 5.0], "held-out"), temperature=4.0)
    result = answer(backend, "/v1/rewards", {"prompt": "p", "completions": ["a"]})["results"][0]
    assert {name: result[name] for name in SCALES} == {
        "raw": 4.0,
        "centered": 1.0,
        "z": 0.5,
        "percentile": pytest.approx(75.0),
        "calibrated": 0.25,
    }


def test_a_scale_that_the_model_cannot_give_is_null_and_not_missing() -> None:
    result = answer(FixedBackend(), "/v1/rewards", {"prompt": "p", "completions": ["a"]})["results"][0]
    assert {name: result[name] for name in SCALES if name != "raw"} == dict.fromkeys(SCALES[1:])
    assert result["step_scores"] is None
    assert result["disagreement"] is None


def test_an_item_that_cannot_be_scored_says_why_and_the_others_keep_their_scores() -> None:
    refusal = ItemRefusal("too_long", "200 tokens, and at most 128 fit", "shorten it")
    about: dict[str, Any] = {"reference": reference_statistics([0.0, 2.0], "held-out")}
    backend = FixedBackend([ItemScore(1.0, 3), refusal, ItemScore(2.0, 4, truncated=True)], **about)
    body = answer(backend, "/v1/rewards", {"prompt": "p", "completions": ["a", "b", "c"]})
    RewardsAnswer.model_validate(body)
    first, failed, last = body["results"]
    assert failed == {
        "index": 1,
        "error": {"kind": "too_long", "message": "200 tokens, and at most 128 fit", "hint": "shorten it"},
    }
    assert (first["raw"], first["centered"], first["truncated"]) == (1.0, 0.0, False)
    assert (last["raw"], last["centered"], last["truncated"]) == (2.0, 1.0, True)
    assert body["usage"] == {"num_tokens": 7, "num_items": 3}


def test_a_completion_over_the_models_length_fails_alone(client: TestClient, scorer: Scorer) -> None:
    body = {"prompt": "p", "completions": ["short", "word " * 500]}
    fine, failed = client.post("/v1/rewards", json=body).json()["results"]
    assert fine["raw"] == pytest.approx(scorer.score(["p"], ["short"])[0], abs=1e-5)
    assert failed["error"]["kind"] == "too_long"
    assert "word word" not in failed["error"]["message"]


def test_ensembles_say_how_far_their_members_disagree() -> None:
    backend = FixedBackend([ItemScore(1.0, 3, disagreement=0.25)])
    assert answer(backend, "/v1/rewards", {"prompt": "p", "completions": ["a"]})["results"][0]["disagreement"] == 0.25


def test_process_models_score_each_step(process_scorer: Scorer) -> None:
    steps = ["2 + 2 = 4", "so 8"]
    backend = InProcessBackend(process_scorer)
    body = {"prompt": "double 2 + 2", "completions": ["\n".join(steps), "4"], "steps": [steps, None]}
    first, second = answer(backend, "/v1/rewards", body)["results"]
    given = PromptGroup("double 2 + 2", ("\n".join(steps),), steps=(tuple(map(Step, steps)),))
    split = PromptGroup("double 2 + 2", ("4",))
    assert len(first["step_scores"]) == 2
    assert first["step_scores"] == pytest.approx(process_scorer.step_scores([given])[0][0], abs=1e-5)
    assert first["raw"] == pytest.approx(process_scorer.score_groups([given])[0][0], abs=1e-5)
    assert second["step_scores"] == pytest.approx(process_scorer.step_scores([split])[0][0], abs=1e-5)


def test_steps_are_refused_by_a_model_that_does_not_read_them() -> None:
    backend = FixedBackend()
    error = answer(backend, "/v1/rewards", {"prompt": "p", "completions": ["a"], "steps": [["a"]]}, 400)["error"]
    assert error["param"] == "steps"
    assert "read per sequence" in error["message"]
    assert backend.asked == []


@pytest.mark.parametrize(
    ("route", "body"), [("/v1/rewards", {"completions": ["a"]}), ("/v1/compare", {"a": "a", "b": "b"})]
)
def test_any_model_name_is_taken(route: str, body: dict[str, Any]) -> None:
    with TestClient(create_app(FixedBackend(), ServerSettings())) as client:
        answer = client.post(route, json={"model": "gpt", "prompt": "p", **body})
        refused = client.post(route, json={"model": 7, "prompt": "p", **body})
    assert (answer.status_code, answer.json()["model"]) == (200, "rm")
    assert refused.json()["error"]["param"] == "model"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"completions": ["a"]}, "prompts", "got neither"),
        ({"prompt": "p", "prompts": ["p"], "completions": ["a"]}, "prompts", "got both"),
        ({"prompts": ["p"], "completions": ["a", "b"]}, "prompts", "1 for 2 completions"),
        ({"prompt": "p", "completions": ["a"], "steps": []}, "steps", "0 for 1 completions"),
        ({"prompt": "p", "completions": ["a"], "chat_template": "x"}, "chat_template", "no such field"),
        ({"prompt": "p", "completions": ["a", 7]}, "completions.1", "expected a string, got 7 (int)"),
        ({"prompt": "p", "completions": [[{"role": "user"}]]}, "completions.0.0.content", "missing"),
        ({"prompt": "p", "completions": [[{"role": "user", "content": [1]}]]}, "completions.0.0.content", "a string"),
        ({"prompt": "p", "completions": ["a"], "steps": [[]]}, "steps.0", "at least 1 items"),
        ({"prompt": None, "completions": ["a"]}, "prompts", "got neither"),
        ({"prompt": "p", "completions": []}, None, "nothing to score"),
        ([], None, "expected an object"),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_refused_by_the_field(
    untouched: tuple[FixedBackend, TestClient], body: Any, param: str | None, words: str
) -> None:
    backend, client = untouched
    response = client.post("/v1/rewards", json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert backend.asked == []


# -- /v1/compare -----------------------------------------------------------------------------------------------------


def test_the_probability_is_the_sigmoid_of_the_difference_over_the_temperature() -> None:
    """Sigmoid((3 - 1) / 4) = 1 / (1 + exp(-0.5))."""
    backend = FixedBackend([ItemScore(3.0, 5), ItemScore(1.0, 6)], temperature=4.0)
    body = answer(backend, "/v1/compare", {"prompt": "p", "a": "x", "b": "y"})
    assert body["probability"] == pytest.approx(1 / (1 + math.exp(-0.5)), abs=1e-15)
    assert (body["temperature"], body["fitted"]) == (4.0, True)
    assert (body["a"]["raw"], body["b"]["raw"]) == (3.0, 1.0)
    assert "index" not in body["a"]
    assert body["usage"] == {"num_tokens": 11, "num_items": 2}
    assert backend.asked == [(Conversation("p", "x"), Conversation("p", "y"))]


@pytest.mark.parametrize("about", [{"temperature": None}, {"temperature": 4.0, "unit": "completion"}])
def test_without_a_temperature_of_preferences_it_is_1_and_said_so(about: dict[str, Any]) -> None:
    backend = FixedBackend([ItemScore(1.0, 5), ItemScore(3.0, 6)], **about)
    body = answer(backend, "/v1/compare", {"prompt": "p", "a": "x", "b": "y"})
    assert body["probability"] == pytest.approx(1 / (1 + math.exp(2.0)), abs=1e-15)
    assert (body["temperature"], body["fitted"]) == (1.0, False)


@pytest.mark.parametrize(("margin", "probability"), [(4000.0, 1.0), (-4000.0, 0.0), (0.0, 0.5)])
def test_far_differences_overflow_nowhere(margin: float, probability: float) -> None:
    backend = FixedBackend([ItemScore(margin, 1), ItemScore(0.0, 1)])
    assert answer(backend, "/v1/compare", {"prompt": "p", "a": "x", "b": "y"})["probability"] == probability


def test_swapping_the_two_turns_the_probability_round(client: TestClient, scorer: Scorer) -> None:
    one = client.post("/v1/compare", json={"prompt": MESSAGES, "a": "4", "b": "five"}).json()
    other = client.post("/v1/compare", json={"prompt": MESSAGES, "a": "five", "b": "4"}).json()
    assert one["probability"] + other["probability"] == pytest.approx(1.0, abs=1e-12)
    a, b = scorer.score([MESSAGES, MESSAGES], ["4", "five"])
    assert one["probability"] == pytest.approx(1 / (1 + math.exp(-(a - b) / one["temperature"])), abs=1e-5)


@pytest.mark.parametrize(("kind", "status"), [("too_long", 400), ("not_finite", 500)])
def test_a_comparison_with_one_side_only_is_none(kind: Any, status: int) -> None:
    backend = FixedBackend([ItemScore(1.0, 1), ItemRefusal(kind, "because")])
    error = answer(backend, "/v1/compare", {"prompt": "p", "a": "x", "b": "y"}, status)["error"]
    assert error["param"] == "b"
    assert error["message"] == "b: because"


def test_the_probability_does_not_depend_on_the_servers_scale() -> None:
    """On the scale z, with deviation 2, the difference would be 1, not 2."""
    about: dict[str, Any] = {"reference": reference_statistics([1.0, 5.0], "held-out")}
    backend = FixedBackend([ItemScore(3.0, 1), ItemScore(1.0, 1)], **about)
    body = answer(backend, "/v1/compare", {"prompt": "p", "a": "x", "b": "y"}, scale="z")
    assert body["probability"] == pytest.approx(1 / (1 + math.exp(-2.0)), abs=1e-15)


def test_what_the_backend_refuses_is_the_answer() -> None:
    with client_of(FixedBackend(failure=Unavailable("restarting", retry_after=4.2))) as client:
        response = client.post("/v1/rewards", json={"prompt": "p", "completions": ["a"]})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["error"]["type"] == "service_unavailable"
