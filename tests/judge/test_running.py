"""Whole files: every item once and in order, whatever interrupts, and nothing asked twice that has a verdict."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.judge.scripted_client import ScriptedClient, always_first, longer_wins

from rewardlab.errors import ConfigError, DataError, JudgeEndpointError, RewardLabError
from rewardlab.judge.chat import ChatFailure, ChatReply, Usage
from rewardlab.judge.event_loop import EventLoop
from rewardlab.judge.judge import Judge
from rewardlab.judge.running import JudgedFile, Progress, judge_file, used_between
from rewardlab.scoring.partial import check_written

WORDS = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    with EventLoop() as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 pairs whose chosen completion is the longer one."""
    draw = random.Random(0)
    rows = []
    for index in range(40):
        chosen, rejected = (
            " ".join(draw.choices(WORDS, k=count)) for count in (draw.randint(6, 9), draw.randint(1, 4))
        )
        rows.append({"id": index, "prompt": f"Q{index}?", "chosen": chosen, "rejected": rejected})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judged(client: Any, data: Path, loop: EventLoop, **options: Any) -> JudgedFile:
    output = options.pop("output", data.with_name("out.jsonl"))
    judge_options = {name: options.pop(name) for name in ("seed", "prompt") if name in options}
    judge = Judge(client, secret=b"s", **judge_options)
    return judge_file(judge, [data], output, loop=loop, **options)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Slow(ScriptedClient):
    """Answers after a random time, so out of order."""

    async def complete(self, request: Any) -> Any:
        self.seconds = random.Random(str(request.messages)).random() / 100
        return await super().complete(request)


def test_rows_come_in_the_order_of_the_input_though_answered_out_of_it(data: Path, loop: EventLoop) -> None:
    seen: list[Progress] = []
    client = Slow(longer_wins)
    run = judged(client, data, loop, on_progress=seen.append)
    rows = rows_of(run.output)
    assert [row["id"] for row in rows] == list(range(40))
    assert all(row["verdict"] == row["human"] for row in rows)
    assert len(client.requests) == 80
    assert client.most_at_once <= 2 * 8
    assert (seen[0].done, seen[-1]) == (0, Progress(40, 40, 0, 0))
    assert [verdict.choice for _, verdict in run.judged] == [row["verdict"] for row in rows]  # type: ignore[union-attr]
    assert sorted(path.name for path in data.parent.iterdir()) == ["out.jsonl", "pairs.jsonl"]
    assert run.to_dict()["num_verdicts"] == 40
    json.dumps(run.to_dict(), allow_nan=False)


def test_a_judge_that_likes_a_place_only_ties(data: Path, loop: EventLoop) -> None:
    run = judged(ScriptedClient(always_first), data, loop)
    assert {row["verdict"] for row in rows_of(run.output)} == {"tie"}
    assert {row["consistent"] for row in rows_of(run.output)} == {False}


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), JudgeEndpointError("the key is refused"), RuntimeError("a bug")])
def test_what_is_finished_is_kept_and_only_the_rest_is_asked(data: Path, loop: EventLoop, stop: BaseException) -> None:
    whole = judged(ScriptedClient(longer_wins), data, loop, output=data.with_name("whole.jsonl")).output.read_bytes()

    class Stops(ScriptedClient):
        async def complete(self, request: Any) -> Any:
            if len(self.requests) >= 31:
                raise stop if not isinstance(stop, KeyboardInterrupt) else asyncio.CancelledError
            return await super().complete(request)

    first = Stops(longer_wins)
    with pytest.raises(BaseException) as raised:  # noqa: PT011  # each kind in turn
        judged(first, data, loop)
    assert isinstance(raised.value, type(stop) | asyncio.CancelledError) or "ancel" in type(raised.value).__name__
    assert not data.with_name("out.jsonl").exists()
    kept = rows_of(data.with_name("out.jsonl.partial"))
    assert 0 < len(kept) <= 16
    second = ScriptedClient(longer_wins)
    run = judged(second, data, loop)
    assert run.output.read_bytes() == whole
    assert run.resumed == len(kept)
    assert len(second.requests) == 2 * (40 - len(kept))


def test_a_torn_tail_is_cut_off(data: Path, loop: EventLoop) -> None:
    whole = judged(ScriptedClient(longer_wins), data, loop, output=data.with_name("whole.jsonl")).output.read_bytes()

    class Stops(ScriptedClient):
        async def complete(self, request: Any) -> Any:
            if len(self.requests) >= 31:
                raise JudgeEndpointError("gone")
            return await super().complete(request)

    with pytest.raises(JudgeEndpointError):
        judged(Stops(longer_wins), data, loop)
    with open(data.with_name("out.jsonl.partial"), "ab") as partial:
        partial.write(b'{"item": 39, "mode": "pairw')
    assert judged(ScriptedClient(longer_wins), data, loop).output.read_bytes() == whole


def test_what_failed_at_the_endpoint_is_asked_again_and_what_was_judged_is_not(data: Path, loop: EventLoop) -> None:
    """All of the first 30 items time out but 10; the run stops for it; afterwards only the failed ones are asked."""

    def failing(shown: dict[str, str]) -> Any:
        number = int(shown["prompt"][1:-1])
        if number in (3, 4):
            return ChatReply("Hm.")
        return longer_wins(shown) if number < 10 else ChatFailure("timeout", "nothing came", attempts=6)

    with pytest.raises(RewardLabError, match=r"items have no verdict \(.* timeout, 2 malformed\).*nothing came"):
        judged(ScriptedClient(failing), data, loop)
    client = ScriptedClient(longer_wins)
    run = judged(client, data, loop)
    assert len(client.requests) == 2 * 30
    assert run.resumed == 10
    assert run.abstained == {"malformed": 2}
    assert [row["id"] for row in rows_of(run.output) if row["verdict"] is None] == [3, 4]


def test_a_run_goes_on_to_its_end_where_it_may(data: Path, loop: EventLoop) -> None:
    run = judged(ScriptedClient(lambda shown: ChatReply("Hm.")), data, loop, max_abstained=1.0)
    assert run.abstained == {"malformed": 40}
    assert all(row["p_first"] is None and row["verdict"] is None for row in rows_of(run.output))


def test_what_a_limit_left_unasked_does_not_stop_the_run(data: Path, loop: EventLoop) -> None:
    calls = 0

    def limited(shown: dict[str, str]) -> Any:
        nonlocal calls
        calls += 1
        return longer_wins(shown) if calls <= 20 else ChatFailure("budget", "20 calls were allowed")

    run = judged(ScriptedClient(limited), data, loop)
    assert run.abstained == {"budget": 30}


@pytest.mark.parametrize(
    ("option", "told"), [({"seed": 1}, "seed was 0, is now 1"), ({"settings": {"base_url": "B"}}, "base_url was 'A'")]
)
def test_other_settings_are_not_taken_up(data: Path, loop: EventLoop, option: dict[str, Any], told: str) -> None:
    def gone(shown: dict[str, str]) -> str:
        raise JudgeEndpointError("gone")

    settings: dict[str, Any] = {"settings": {"base_url": "A"}}
    with pytest.raises(JudgeEndpointError):
        judged(ScriptedClient(gone), data, loop, **settings)
    with pytest.raises(ConfigError, match=told):
        judged(ScriptedClient(longer_wins), data, loop, **{**settings, **option})
    assert judged(ScriptedClient(longer_wins), data, loop, **{**settings, **option}, restart=True).resumed == 0


def test_changed_labels_systems_and_subsets_are_not_taken_up(data: Path, loop: EventLoop) -> None:
    def gone(shown: dict[str, str]) -> str:
        raise JudgeEndpointError("gone")

    rows = rows_of(data)
    with pytest.raises(JudgeEndpointError):
        judged(ScriptedClient(gone), data, loop)
    for name, change in (
        ("systems", {"chosen_model": "x", "rejected_model": "y"}),
        ("subsets", {"subset": "hard"}),
        ("labels", {"p_chosen": 0.75}),
    ):
        data.write_text("".join(json.dumps({**row, **change}) + "\n" for row in rows))
        with pytest.raises(ConfigError, match=f"{name} was "):
            judged(ScriptedClient(longer_wins), data, loop)


@pytest.mark.parametrize("kind", ["too_long", "bad_request"])
def test_what_the_server_refused_is_asked_again(data: Path, loop: EventLoop, kind: Any) -> None:
    """A server restarted with a longer context can answer what it could not."""

    def refusing(shown: dict[str, str]) -> Any:
        number = int(shown["prompt"][1:-1])
        if number > 20:
            raise JudgeEndpointError("gone")
        return ChatFailure(kind, "context 4096") if number == 3 else longer_wins(shown)

    with pytest.raises(JudgeEndpointError):
        judged(ScriptedClient(refusing), data, loop, concurrency=1)
    run = judged(ScriptedClient(longer_wins), data, loop, concurrency=1)
    assert (run.abstained, run.resumed) == ({}, 20)


def test_files_to_write_are_apart_from_all_others(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "data.jsonl")
    data, output = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    for other, told in (
        (data, "is also what is read"),
        (tmp_path / "link.jsonl", "is also what is read"),
        (output, "is also the output"),
        (tmp_path / "out.jsonl.quarantine.jsonl", "a name for what a run keeps"),
        (tmp_path, "is no file"),
        (Path("/dev/full"), "is no file"),
        (data / "cache", "cannot be made"),
    ):
        with pytest.raises(ConfigError, match=told):
            check_written([data], {"the output": output, "the cache": other})
    check_written([data], {"the output": output, "the cache": tmp_path / "new" / "cache"})
    assert (tmp_path / "new").is_dir()


def test_what_was_used_between_two_looks() -> None:
    before = Usage(calls=3, failures={"timeout": 1}, prompt_tokens=5, cost=1.0, probe_calls=2)
    after = Usage(
        calls=9, failures={"timeout": 1, "budget": 4}, prompt_tokens=6, cost=1.5, probe_calls=2, estimated=True
    )
    expected = Usage(calls=6, failures={"budget": 4}, prompt_tokens=1, cost=0.5, estimated=True)
    assert used_between(before, after) == expected
    assert used_between(Usage(), Usage(calls=1)).cost is None


def test_an_output_that_is_there_is_not_replaced_unless_asked(data: Path, loop: EventLoop) -> None:
    first = judged(ScriptedClient(longer_wins), data, loop).output
    with pytest.raises(ConfigError, match="exists already"):
        judged(ScriptedClient(longer_wins), data, loop)
    judged(ScriptedClient(always_first), data, loop, overwrite=True)
    assert {row["verdict"] for row in rows_of(first)} == {"tie"}
    with pytest.raises(ConfigError, match="not written as Parquet"):
        judged(ScriptedClient(longer_wins), data, loop, output=data.with_name("out.parquet"))


def test_every_mode_runs_and_keeps_its_rows(tmp_path: Path, loop: EventLoop) -> None:
    data = tmp_path / "lists.jsonl"
    row = {"id": "a", "prompt": "Q?", "completions": ["mid length", "short", "a long answer that says all"]}
    data.write_text(json.dumps(row) + "\n")
    ranked = judged(ScriptedClient(longer_wins), data, loop, mode="listwise", output=tmp_path / "ranked.jsonl")
    (found,) = rows_of(ranked.output)
    names = [row["completions"][index] for index in found["completions"]]
    assert all(len(names[i]) > len(names[j]) for i, j in found["better"])
    rated = judged(ScriptedClient(longer_wins), data, loop, mode="rating", output=tmp_path / "rated.jsonl")
    assert [found["rating"] for found in rows_of(rated.output)] == [2.0, 1.0, 3.0]
    compared = judged(ScriptedClient(longer_wins), data, loop, output=tmp_path / "compared.jsonl")
    assert [found["verdict"] for found in rows_of(compared.output)].count("tie") == 0
    assert len(compared.judged) == 3
    with pytest.raises(DataError, match="anything to judge as steps"):
        judged(ScriptedClient(longer_wins), data, loop, mode="steps", output=tmp_path / "steps.jsonl")
    stepped = tmp_path / "stepped.jsonl"
    stepped.write_text(json.dumps({"prompt": "Q?", "completions": ["a", "b"], "labels": [True, False]}) + "\n")
    client = ScriptedClient(lambda shown: "first error: 2")
    steps = judged(client, stepped, loop, mode="steps", output=tmp_path / "steps.jsonl")
    assert rows_of(steps.output)[0]["labels"] == [1, -1]
