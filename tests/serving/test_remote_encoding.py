"""The encoder of a scorer over HTTP: what it asks, what it remembers, and the errors it puts in place."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from tests.serving.scripted_server import ScriptedServer, answering, failing, right, scripted

from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import (
    CompletionOfSeveralTurnsError,
    CompletionTooLongError,
    ConfigError,
    DataError,
    LoneSurrogateError,
    StepBoundaryError,
)
from rewardlab.serving.client import ModelChanged, RewardClient, ServerFailed
from rewardlab.serving.remote_encoding import EncodedRemotely, RemoteEncoder, UnknownIds
from rewardlab.types import PromptGroup, Step

INFO: dict[str, Any] = {
    "model": {"max_length": 128, "kind": "sequence", "fingerprint": "f" * 16},
    "limits": {"max_chars": 1000},
}


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted(right) as opened:
        yield opened


def encoder(server: ScriptedServer, remember: int = 1000, **model: Any) -> RemoteEncoder:
    return RemoteEncoder(RewardClient(server.url, retries=0), {**INFO, "model": {**INFO["model"], **model}}, remember)


def asked(server: ScriptedServer) -> list[Any]:
    return [completion for body in server.bodies for completion in body["completions"]]


def test_a_group_comes_back_with_its_numbers_of_tokens_and_no_ids(server: ScriptedServer):
    group = PromptGroup("p", ("one", "three"))
    (found,) = encoder(server).encode_many([group])
    assert isinstance(found, EncodedGroup)
    assert isinstance(found, EncodedRemotely)
    assert found.group is group
    assert found.lengths == (3, 3)
    assert [one.raw for one in found.results] == [3.0, 5.0]  # type: ignore[union-attr]
    for use in (lambda: found.sequences[0][0], lambda: list(found.sequences[0]), lambda: tuple(found.sequences[1])):
        with pytest.raises(ConfigError, match="token ids: not known here"):
            use()


def test_what_was_said_is_not_asked_again(server: ScriptedServer):
    """First which rows can be read, then their scores; and each completion of a bad group alone, as adapters do."""
    one, group = encoder(server), PromptGroup("p", ("one", "bad", "three"))
    assert isinstance(one.encode_many([group])[0], CompletionTooLongError)
    alone = one.encode_many([PromptGroup("p", (text,)) for text in group.completions])
    assert [isinstance(item, DataError) for item in alone] == [False, True, False]
    one.encode(PromptGroup("p", ("one", "three")))
    assert asked(server) == ["one", "bad", "three"]


def test_equal_completions_of_a_prompt_are_asked_once_and_those_of_other_prompts_are_not_the_same(
    server: ScriptedServer,
):
    one = encoder(server)
    one.encode_many([PromptGroup("p", ("same", "same")), PromptGroup("q", ("same",)), PromptGroup("p", ("same",))])
    assert asked(server) == ["same", "same"]


def test_no_more_is_remembered_than_allowed(server: ScriptedServer):
    one = encoder(server, remember=2)
    groups = [PromptGroup("p", (text,)) for text in ("a", "b", "c")]
    one.encode_many(groups)
    one.encode_many(groups[1:])
    assert asked(server) == ["a", "b", "c"]
    one.encode_many(groups[:1])
    assert asked(server) == ["a", "b", "c", "a"]


def test_what_the_server_broke_on_is_asked_again():
    broken = {"index": 0, "error": {"kind": "failed", "message": "out of memory", "hint": ""}}
    with scripted(answering(lambda answer: answer.update(results=[broken])), right) as server:
        one, group = encoder(server), PromptGroup("p", ("a",))
        (first,) = one.encode_many([group])
        (second,) = one.encode_many([group])
    assert first.results[0].kind == "failed"  # type: ignore[union-attr]
    assert second.results[0].raw == 1.0  # type: ignore[union-attr]


def test_a_pickle_remembers_nothing_and_asks_the_same_server(server: ScriptedServer):
    one, group = encoder(server), PromptGroup("p", ("a",))
    one.encode(group)
    again = pickle.loads(pickle.dumps(one))
    again.encode(group)
    assert asked(server) == ["a", "a"]


def test_a_prompt_that_was_read_as_text_is_not_read_as_a_transcript_again(server: ScriptedServer):
    text = "\n\nHuman: hello\n\nAssistant:"
    encoder(server).encode_many([PromptGroup(text, ("a",)), PromptGroup("", ("b",))])
    sent = [prompt for body in server.bodies for prompt in body["prompts"]]
    assert sent == [[{"role": "user", "content": text}], ""]


@pytest.mark.parametrize(("kind", "sent"), [("step", [["one", "two"]]), ("sequence", None), ("token", None)])
def test_steps_go_to_process_models_alone(server: ScriptedServer, kind: str, sent: Any):
    group = PromptGroup("p", ("onetwo",), steps=((Step("one"), Step("two")),))
    encoder(server, kind=kind).encode_many([group])
    assert server.bodies[0].get("steps") == sent


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("invalid", DataError), ("step_boundary", StepBoundaryError), ("too_long", CompletionTooLongError)],
)
def test_what_cannot_be_read_has_an_encoder_s_error(kind: str, expected: type[Exception]):
    def refused(answer: dict[str, Any]) -> None:
        answer["results"][0] = {"index": 0, "error": {"kind": kind, "message": "words", "hint": "do"}}

    with scripted(answering(refused)) as server:
        (found,) = encoder(server, kind="step").encode_many([PromptGroup("p", ("a",), source="rows.jsonl:7")])
    assert type(found) is expected
    assert found.message == "rows.jsonl:7: completion 0: words"  # type: ignore[union-attr]
    assert found.hint == "do"  # type: ignore[union-attr]


LONE = PromptGroup("p", ("\ud800",), source="here")
TURNS = PromptGroup("p", (({"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}),), source="here")


@pytest.mark.parametrize(
    ("group", "kind", "expected"),
    [
        (LONE, "sequence", LoneSurrogateError),
        (PromptGroup("p", ("c",), steps=((Step("\ud800"),),), source="here"), "step", LoneSurrogateError),
        (TURNS, "token", CompletionOfSeveralTurnsError),
        (PromptGroup("p", ("c" * 1000,), source="here"), "sequence", CompletionTooLongError),
        (PromptGroup("p" * 1000, ("c",), source="here"), "sequence", DataError),
    ],
)
def test_what_the_server_would_refuse_with_its_neighbours_is_not_sent(
    server: ScriptedServer, group: PromptGroup, kind: str, expected: type[Exception]
):
    found = encoder(server, kind=kind).encode_many([PromptGroup("p", ("good",)), group])
    assert isinstance(found[0], EncodedRemotely)
    assert type(found[1]) is expected
    assert "here: " in str(found[1])
    assert asked(server) == ["good"]


def test_a_text_at_the_limit_is_sent(server: ScriptedServer):
    """The prompt goes as a message, and the server counts 8 for a turn."""
    assert isinstance(encoder(server).encode_many([PromptGroup("p" * 500, ("c" * 492,))])[0], EncodedRemotely)
    assert isinstance(encoder(server).encode_many([PromptGroup("p" * 500, ("c" * 493,))])[0], DataError)


@pytest.mark.parametrize(
    ("act", "kind"), [(failing(500), ServerFailed), (answering(lambda a: a.update(fingerprint="x")), ModelChanged)]
)
def test_a_server_that_fails_is_no_error_of_a_group(act: Any, kind: type[Exception]):
    with scripted(act) as server, pytest.raises(kind):
        encoder(server).encode_many([PromptGroup("p", ("a",))])


def test_progress_is_told_in_groups():
    counts: list[int] = []
    with scripted(right) as server:
        encoder(server).encode_many([PromptGroup("p", ("a", "b")), PromptGroup("q", ("c",))], counts.append)
    assert counts == [2]


def test_what_only_a_tokenizer_knows_is_refused(server: ScriptedServer):
    one = encoder(server)
    for use in (lambda: one.tokenizer, lambda: one.read_out):
        with pytest.raises(ConfigError, match="the model is on a server"):
            use()
    assert one.max_length == 128
    assert len(UnknownIds(4)) == 4
