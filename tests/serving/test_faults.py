"""The laws of a server under faults, each seen on the real processes: what fails fails alone, and is never a number.

One server is shared, in the file's order, for a worker's start costs seconds: its worker is made to fail in every way,
its model is changed, and at last it is told to end. What must be in one batch or in the queue is put there while the
worker is held, so that no test counts on being quick; bounds in seconds are there to end a test that fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file, save_file
from tests.serving.faulty_scorer import DIE, HANG, HELD_FILE, HOLD, NAN, RAISE
from tests.serving.server_process import HOST, START_SECONDS, Reply, ServerProcess, wait_for

from rewardlab.scoring.scorer import Scorer

FAULTY = "faulty_scorer:open_scorer"
DEADLINE = 120.0
STALL = 4.0
SETTINGS = {"stall_s": STALL, "deadline_s": DEADLINE, "drain_s": 60.0, "header_timeout_s": 2.0, "body_timeout_s": 2.0}
ONE_BATCH = {"tokens_per_batch": 16_384}
"""All that a test posts fits one batch, so that nothing is sent ahead while the worker is held."""
LONG = 60.0
"""Seconds for what takes a moment."""

PROMPTS = [f"Write about {words}." for words in ("the sea", "Paris", "wind and rain", "a short poem")]
GOOD = [(PROMPTS[number % 4], f"the sea and the wind number {number}") for number in range(64)]


def body(item: tuple[str, str]) -> dict[str, Any]:
    """One item as vLLM's clients post it."""
    prompt, completion = item
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]}


def number_of(reply: Reply) -> float:
    """The score as those clients read it."""
    return reply.json()["data"][-1]["probs"][-1]


def post_all(server: ServerProcess, items: Sequence[tuple[str, str]]) -> list[Reply]:
    return server.post_all("/classify", [body(item) for item in items], in_flight=len(items))


def require_scores(replies: Sequence[Reply], items: Sequence[tuple[str, str]], scorer: Scorer) -> None:
    """Each reply is 200 with the number that the Scorer gives offline."""
    assert [(reply.status, reply.content) for reply in replies if reply.status != 200] == []
    expected = scorer.score([prompt for prompt, _ in items], [completion for _, completion in items])
    assert [number_of(reply) for reply in replies] == pytest.approx(expected, abs=1e-5)


def require_refused(reply: Reply, status: int) -> str:
    """A failure in the dialect's own shape and without a number; its message."""
    assert reply.status == status, (reply.status, reply.content)
    told = reply.json()
    assert list(told) == ["error"]
    assert told["error"]["code"] == status
    if status == 503:
        assert int(reply.headers["retry-after"]) >= 1
    return str(told["error"]["message"])


def changed_copy(source: Path, folder: Path, change: float) -> Path:
    """A checkpoint whose head's weights are other ones, and whose contract is the old."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("training"))
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["score.weight"] = weights["score.weight"] + change
    save_file(weights, file, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def model(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint that is served, of its own so that nobody else's fixture is changed."""
    return Path(shutil.copytree(reward_model, tmp_path_factory.mktemp("served") / "rm"))


@pytest.fixture(scope="module")
def nan_model(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return changed_copy(reward_model, tmp_path_factory.mktemp("nan") / "rm", float("nan"))


@pytest.fixture(scope="module")
def other_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another checkpoint, with a contract that holds."""
    from rewardlab.modeling.checkpoint import Provenance, save_reward_model
    from rewardlab.modeling.preparing import prepare_for_training

    prepared = prepare_for_training(base_model, seed=7)
    folder = tmp_path_factory.mktemp("other") / "rm"
    made = Provenance(objective={"name": "none"})
    arguments = (prepared.model, prepared.tokenizer, prepared.template)
    save_reward_model(folder, *arguments, max_length=128, provenance=made)
    return folder


@pytest.fixture(scope="module")
def other(other_model: Path) -> Scorer:
    return Scorer.from_pretrained(other_model)


@pytest.fixture(scope="module")
def held_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("held") / "held"


@pytest.fixture(scope="module")
def shared_server(model: Path, held_file: Path) -> Iterator[ServerProcess]:
    environment = {HELD_FILE: str(held_file)}
    with ServerProcess(model, opener=FAULTY, options=ONE_BATCH, environment=environment, **SETTINGS) as server:
        yield server.wait_until_ready()


@pytest.fixture
def server(shared_server: ServerProcess) -> ServerProcess:
    """The shared server, ready again after what the test before has done to it."""
    wait_for(lambda: shared_server.health() == 200, START_SECONDS, lambda: f"not ready:\n{shared_server.stderr}")
    return shared_server


@pytest.fixture
def held(server: ServerProcess, held_file: Path) -> Iterator[Callable[[], None]]:
    """The worker computes an item and nothing else until this is called; what is posted meanwhile waits."""
    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(server.post, "/classify", body((PROMPTS[0], HOLD)))
        try:
            wait_for(held_file.exists, LONG, "the worker never began")
            yield held_file.unlink
        finally:
            held_file.unlink(missing_ok=True)
        assert holding.result().status == 200


def wait_for_queue(server: ServerProcess, items: int) -> None:
    """Wait until so many items wait."""
    wait_for(lambda: server.metric("rewardlab_queue_items") == items, LONG, lambda: f"never {items} items wait")


@contextmanager
def steady_load(server: ServerProcess, items: Sequence[tuple[str, str]], threads: int = 2) -> Iterator[list[Any]]:
    """Posts one after the other from several threads; the list fills with (item, reply)."""
    found: list[Any] = []
    ended = threading.Event()

    def work(offset: int) -> None:
        number = offset
        while not ended.is_set():
            item = items[number % len(items)]
            found.append((item, server.post("/classify", body(item))))
            number += threads
            time.sleep(0.02)

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(work, offset) for offset in range(threads)]
        try:
            yield found
        finally:
            ended.set()
        for one in running:
            one.result()


@pytest.mark.parametrize("fault", [RAISE, NAN])
def test_a_poisoned_item_fails_alone(server, scorer, held, fault):
    """32 clients with one item each, one of which the model cannot score: 31 have the Scorer's number."""
    before = server.metric("rewardlab_batch_items_count")
    items = [*GOOD[:20], (PROMPTS[0], fault), *GOOD[20:31]]
    with ThreadPoolExecutor(1) as pool:
        posted = pool.submit(post_all, server, items)
        wait_for_queue(server, 32)
        held()
        replies = posted.result()
    message = require_refused(replies.pop(20), 500)
    assert fault not in message, "what a client sent is not repeated"
    require_scores(replies, GOOD[:31], scorer)
    assert server.metric("rewardlab_batch_items_count") - before == 2, "they were not in one batch"


def test_of_one_request_with_a_poisoned_item_no_number_is_given(server):
    """The vLLM dialect's answers are numbers alone, so that one failure is the request's."""
    pairs = {"queries": "Which?", "documents": ["this", NAN, "that"]}
    require_refused(server.post("/score", pairs), 500)


@pytest.mark.parametrize("fault", [HANG, DIE])
def test_a_worker_that_hangs_or_dies_costs_only_what_it_computed(server, scorer, held, fault):
    """What is in computation fails with 503, what waits is scored by the next worker, health tells both."""
    restarts = server.metric("rewardlab_worker_restarts_total")
    [old] = server.children()
    with ThreadPoolExecutor(20) as pool:
        doomed = [pool.submit(server.post, "/classify", body((PROMPTS[0], f"{fault} {number}"))) for number in range(3)]
        wait_for_queue(server, 3)
        held()
        wait_for_queue(server, 0)
        if fault == DIE:
            wait_for(lambda: server.health() == 503, LONG, "health never told that the worker had died")
        waiting = [pool.submit(server.post, "/classify", body(item)) for item in GOOD[:16]]
        wait_for_queue(server, 16)
        wait_for(lambda: server.health() == 503, LONG, "health never told that the worker had gone")
        failed = [one.result() for one in doomed]
        wait_for(lambda: server.health() == 200, START_SECONDS, lambda: f"no new worker:\n{server.stderr}")
        survived = [one.result() for one in waiting]
    for reply in failed:
        require_refused(reply, 503)
        assert reply.seconds < DEADLINE / 2, "it waited for the next worker"
    require_scores(survived, GOOD[:16], scorer)
    [new] = server.children()
    assert new.pid != old.pid
    assert server.metric("rewardlab_worker_restarts_total") == restarts + 1
    require_scores(post_all(server, GOOD[:4]), GOOD[:4], scorer)


def test_a_client_that_goes_takes_its_items_along(server, held):
    """While the worker computes, 40 clients post and go: none of their items is computed."""
    before = server.metric("rewardlab_batch_items_sum")
    gone = [server.connect() for _ in range(40)]
    for connection in gone:
        connection.sendall(_whole_post((PROMPTS[0], "I shall not wait")))
    wait_for_queue(server, 40)
    for connection in gone:
        connection.close()
    wait_for_queue(server, 0)
    held()
    wait_for(lambda: server.metric("rewardlab_batch_items_sum") > before, LONG)
    assert server.post("/classify", body(GOOD[0])).status == 200
    assert server.metric("rewardlab_batch_items_sum") == before + 2, "only what held the worker, and the last"


def test_a_thousand_clients_that_go_leave_nothing_behind(server, scorer):
    """They go in the middle of the head, of the body, and after it; queue, files and memory are as before."""

    async def leave(number: int) -> None:
        _, writer = await asyncio.open_connection(HOST, server.port)
        whole = _whole_post((PROMPTS[0], f"gone {number}"))
        writer.write(whole[: (20, len(whole) - 10, len(whole))[number % 3]])
        await writer.drain()
        if number % 2:
            await asyncio.sleep(0.005)
        writer.transport.abort() if number % 5 else writer.close()

    async def leave_all(count: int) -> None:
        for first in range(0, count, 50):
            await asyncio.gather(*(leave(first + number) for number in range(50)))

    asyncio.run(leave_all(200))  # what the allocator keeps, it has now
    wait_for_queue(server, 0)
    files, memory = server.num_fds, server.rss_mb
    with steady_load(server, GOOD) as served:
        asyncio.run(leave_all(1000))
    wait_for_queue(server, 0)
    wait_for(lambda: server.num_fds <= files + 2, LONG, lambda: f"{server.num_fds} files are open, {files} before")
    assert server.rss_mb < memory + 20
    assert served
    require_scores([reply for _, reply in served], [item for item, _ in served], scorer)


def test_two_hundred_slow_clients_are_cut_and_hinder_nobody(server, scorer):
    """Half send a head byte by byte, half a body: each byte in time, and the whole never."""
    files = server.num_fds
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nX-Slow: "
    started = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    slow = [server.connect() for _ in range(200)]
    for number, connection in enumerate(slow):
        connection.sendall(head if number % 2 else started)
        connection.setblocking(False)
    begin, cut = time.perf_counter(), set()
    with steady_load(server, GOOD) as served:
        while len(cut) < len(slow) and time.perf_counter() - begin < LONG:
            time.sleep(0.2)
            for number, connection in enumerate(slow):
                if number not in cut and _is_cut(connection):
                    cut.add(number)
        seconds = time.perf_counter() - begin
    for connection in slow:
        connection.close()
    assert len(cut) == len(slow), f"{len(slow) - len(cut)} are still there after {seconds:.0f} s"
    assert seconds > 1.0, "they were given no time at all"
    require_scores([reply for _, reply in served], [item for item, _ in served], scorer)
    assert max(reply.seconds for _, reply in served) < 10
    wait_for(lambda: server.num_fds <= files + 2, LONG, lambda: f"{server.num_fds} files are open, {files} before")


@pytest.mark.parametrize("level", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sleeping_under_load_refuses_and_waking_serves_again(server, scorer, level):
    with steady_load(server, GOOD) as found:
        assert server.post(f"/sleep?level={level}", None).status == 200
        assert server.get("/is_sleeping").json() == {"is_sleeping": True}
        assert server.health() == 200
        [asleep] = post_all(server, GOOD[:1])
        assert server.post("/wake_up", None).status == 200
        assert server.get("/is_sleeping").json() == {"is_sleeping": False}
        [awake] = post_all(server, GOOD[:1])
    require_refused(asleep, 503)
    require_scores([awake], GOOD[:1], scorer)
    for item, reply in found:
        if reply.status == 200:
            require_scores([reply], [item], scorer)
        else:
            require_refused(reply, 503)


@pytest.mark.parametrize(
    "fault",
    [
        "other weights",
        "NaN weights",
        pytest.param("missing", marks=pytest.mark.slow),
        pytest.param("no contract", marks=pytest.mark.slow),
    ],
)
def test_a_bad_checkpoint_is_refused_and_the_old_model_serves_on(server, scorer, model, nan_model, tmp_path, fault):
    folder = tmp_path / "rm"
    if fault == "no contract":
        shutil.copytree(model, folder, ignore=shutil.ignore_patterns("training", "reward_contract.json"))
    elif fault == "other weights":
        changed_copy(model, folder, 0.5)
    elif fault == "NaN weights":
        folder = nan_model
    before = server.get("/info").json()
    with steady_load(server, GOOD, threads=1) as served:
        reply = server.post("/reload", {"path": str(folder)})
    message = require_refused(reply, 409)
    assert fault != "NaN weights" or "NaN" in message or "not finite" in message
    assert server.get("/info").json() == before
    assert len(server.children()) == 1
    require_scores([one for _, one in served], [item for item, _ in served], scorer)


def test_a_good_checkpoint_takes_over_without_a_failed_request(server, scorer, other, other_model):
    """Every number under way is the old model's or the new one's, and after the answer to the reload the new one's."""
    texts = [list(one) for one in zip(*GOOD, strict=True)]
    expected = dict(zip(GOOD, zip(scorer.score(*texts), other.score(*texts), strict=True), strict=True))
    before = server.get("/info").json()
    with steady_load(server, GOOD) as served:
        reply = server.post("/reload", {"path": str(other_model)}, timeout=START_SECONDS)
        later = len(served) + 2  # those of the two threads that are under way
        wait_for(lambda: len(served) > later + 8, LONG)
    assert reply.status == 200, (reply.content, server.stderr)
    after = server.get("/info").json()
    assert other.fingerprint in json.dumps(after)
    assert scorer.fingerprint in json.dumps(before)
    assert [one.content for _, one in served if one.status != 200] == []
    assert all(min(abs(number_of(one) - score) for score in expected[item]) < 1e-5 for item, one in served)
    require_scores([one for _, one in served[later:]], [item for item, _ in served[later:]], other)
    wait_for(lambda: len(server.children()) == 1, LONG, "the old worker is still there")


def test_sigterm_finishes_what_was_accepted_and_refuses_the_rest(server, scorer, other, held):
    """24 clients wait when the server is told to stop: all have their number, then it exits with 0."""
    is_changed = other.fingerprint in json.dumps(server.get("/info").json())
    [worker] = server.children()
    with ThreadPoolExecutor(25) as pool:
        replies = [pool.submit(server.post, "/classify", body(item)) for item in GOOD[:24]]
        wait_for_queue(server, 24)
        exited = pool.submit(server.terminate, 2 * LONG)
        wait_for(lambda: server.health() != 200, LONG, "health never told that the server ends")
        assert _is_refused(server), "it takes new requests after SIGTERM"
        assert not any(one.done() for one in replies)
        held()
        require_scores([one.result() for one in replies], GOOD[:24], other if is_changed else scorer)
        assert exited.result() == 0, server.stderr
    assert not worker.is_running()


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_server(model):
    with ServerProcess(model) as killed:
        [worker] = killed.wait_until_ready().children()
        killed.process.kill()
        killed.process.wait(LONG)
        gone = lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE  # noqa: E731
        wait_for(gone, LONG, "the worker lives on")


@pytest.mark.slow
def test_a_checkpoint_with_nan_weights_is_not_served(nan_model):
    program = "import sys; from rewardlab.cli.main import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", program, "serve", str(nan_model), "--port", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=START_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "error:" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "NaN" in ended.stderr or "not finite" in ended.stderr


def _whole_post(item: tuple[str, str]) -> bytes:
    content = json.dumps(body(item)).encode()
    head = f"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return f"{head}\r\n\r\n".encode() + content


def _is_cut(connection: Any) -> bool:
    """Send one more byte; whether the server has closed the connection."""
    try:
        connection.send(b"1")
        return connection.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _is_refused(server: ServerProcess) -> bool:
    try:
        return server.post("/classify", body(GOOD[0]), timeout=30).status == 503
    except OSError:
        return True
