"""Live drift, from a server's counts over real HTTP: quiet, shifted, restarted, unreachable."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rewardlab.errors import CheckpointError, DataError
from rewardlab.metrics.histograms import DISAGREEMENT_GRID, TOKEN_GRID, Histogram, score_grid
from rewardlab.monitoring import live
from rewardlab.monitoring.history import History
from rewardlab.monitoring.live import ROUTE, run_live, run_reference
from rewardlab.monitoring.snapshots import Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

LIMITS = Thresholds(fewest_scores=100)


class Counting:
    """What a server would count of scores around a mean, lengths, and disagreements."""

    def __init__(self, fingerprint: str, edges: tuple[float, ...]) -> None:
        self.fingerprint = fingerprint
        self.id = "first"
        self.key: str | None = None
        self.pause = 0.0
        self.histograms = {
            "scores": Histogram.of(edges),
            "tokens": Histogram.of(TOKEN_GRID),
            "disagreement": Histogram.of(DISAGREEMENT_GRID),
        }
        self.edges = {name: one.edges for name, one in self.histograms.items()}

    def add(self, **values: Any) -> None:
        for name, numbers in values.items():
            self.histograms[name] = self.histograms[name] + Histogram.of(self.edges[name], numbers)

    def restart(self) -> None:
        self.id += "+"
        self.histograms = {name: Histogram.of(edges) for name, edges in self.edges.items()}

    def raw(self) -> bytes:
        return json.dumps(self.body()).encode()

    def body(self) -> dict[str, Any]:
        counted = {name: one.to_dict() for name, one in self.histograms.items()}
        return {"id": self.id, "since": "2026-11-21T00:00:00Z", "fingerprint": self.fingerprint, **counted}


@contextmanager
def serving(counting: Counting) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            refused = counting.key is not None and self.headers["Authorization"] != f"Bearer {counting.key}"
            body = b"{}" if refused else counting.raw()
            self.send_response(404 if self.path != ROUTE else 401 if refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):
                for start in range(0, len(body), len(body) // 8 if counting.pause else len(body)):
                    self.wfile.write(body[start : start + len(body) // 8] if counting.pause else body)
                    time.sleep(counting.pause)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def scorer(reward_model: Path) -> Scorer:
    return Scorer.from_pretrained(reward_model)


@pytest.fixture
def counting(scorer: Scorer) -> Counting:
    assert scorer.contract is not None
    reference = scorer.contract.reference
    assert reference is not None
    return Counting(scorer.fingerprint, score_grid(reference.mean, reference.std))


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "rm.history") as opened:
        yield opened


def like_reference(scorer: Scorer, count: int, seed: int = 0) -> np.ndarray:
    """Scores drawn by the reference's own quantiles, so that nothing has drifted."""
    assert scorer.contract is not None
    assert scorer.contract.reference is not None
    quantiles = {float(level): score for level, score in scorer.contract.reference.quantiles.items()}
    levels = sorted(quantiles)
    drawn = np.random.default_rng(seed).uniform(size=count)
    return np.interp(drawn, levels, [quantiles[level] for level in levels])


def state_of(snapshot: Any, watch: str) -> str:
    return next(finding.state for finding in snapshot.findings if finding.watch == watch)


def test_scores_like_the_contracts_reference_raise_nothing_and_shifted_ones_an_alarm(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, 2000), tokens=[30] * 2000)
        quiet = run_live(url, str(reward_model), history, LIMITS)
        assert (state_of(quiet, "scores"), state_of(quiet, "model")) == ("ok", "ok")
        assert state_of(quiet, "tokens") == "learning"  # the contract says nothing of lengths
        assert quiet.number is not None
        assert quiet.metrics["scores"]["num"] == 2000
        std = scorer.contract.reference.std  # type: ignore[union-attr]
        counting.add(scores=like_reference(scorer, 500, seed=1) + std, tokens=[30] * 500)
        shifted = run_live(url, str(reward_model), history, LIMITS)
    assert shifted.metrics["scores"]["num"] == 500  # the window since the look before, not all
    assert state_of(shifted, "scores") == "alarm"
    assert shifted.metrics["scores"]["psi"] > 0.25


def test_a_window_that_is_too_small_is_left_to_grow(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    with serving(counting) as url:
        for seed in range(3):
            counting.add(scores=like_reference(scorer, 40, seed))
            seen = run_live(url, str(reward_model), history, LIMITS)
    assert seen.metrics["scores"]["num"] == 120
    assert [one.number for one in history.snapshots("live")] == [seen.number]


def test_a_restarted_server_counts_anew_and_nothing_is_subtracted(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, 300))
        run_live(url, str(reward_model), history, LIMITS)
        counting.restart()
        counting.add(scores=like_reference(scorer, 200))
        assert run_live(url, str(reward_model), history, LIMITS).metrics["scores"]["num"] == 200


def test_counts_that_fell_are_an_error(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, 300))
        run_live(url, str(reward_model), history, LIMITS)
        counting.restart()
        counting.id = "first"
        with pytest.raises(DataError, match=r"counted less.*lower than it was"):
            run_live(url, str(reward_model), history, LIMITS)


def test_lengths_and_scores_are_held_against_a_reference_snapshot(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    """The reference's own scores and lengths, served again, are no drift; twice as long answers are."""
    groups = [PromptGroup(f"Count to {n}.", ("one two " * (n % 7 + 1), "no")) for n in range(60)]
    stored = run_reference(scorer, groups, history, data=["reference.jsonl"], model="rm")
    scores = [score for of_group in scorer.score_groups(groups) for score in of_group]
    lengths = [length for item in scorer.encoder.encode_many(groups) for length in item.lengths]  # type: ignore[union-attr]
    assert Histogram.from_dict(stored.metrics["scores"]) == Histogram.of(counting.edges["scores"], scores)
    assert Histogram.from_dict(stored.metrics["tokens"]) == Histogram.of(TOKEN_GRID, lengths)
    assert not Histogram.from_dict(stored.metrics["disagreement"]).num
    with serving(counting) as url:
        counting.add(scores=scores * 3, tokens=lengths * 3)
        same = run_live(url, str(reward_model), history, LIMITS)
        assert (state_of(same, "scores"), state_of(same, "tokens")) == ("ok", "ok")
        counting.add(scores=scores * 3, tokens=np.array(lengths * 3) * 2)
        longer = run_live(url, str(reward_model), history, LIMITS)
    assert (state_of(longer, "scores"), state_of(longer, "tokens")) == ("ok", "alarm")


def test_members_that_disagree_more_are_an_alarm_that_says_why(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting("ensemble", score_grid())
    generator = np.random.default_rng(0)
    reference = Histogram.of(DISAGREEMENT_GRID, generator.gamma(4, 0.1, 2000))
    metrics = {
        "scores": Histogram.of(score_grid(), generator.normal(size=2000)).to_dict(),
        "tokens": Histogram.of(TOKEN_GRID, [50] * 2000).to_dict(),
        "disagreement": reference.to_dict(),
    }
    known = Snapshot("reference", "2026-11-21T00:00:00Z", "A,B", "ensemble", None, ("r.jsonl",), None, metrics=metrics)
    history.record(known, lambda *_: [])
    with serving(counting) as url:
        counting.add(scores=generator.normal(size=400), tokens=[50] * 400, disagreement=generator.gamma(4, 0.2, 400))
        monkeypatch.setattr(live, "require_models", lambda _: None)  # its folders are nowhere
        seen = run_live(url, "A,B", history, LIMITS)
    finding = next(one for one in seen.findings if one.watch == "disagreement")
    assert finding.state == "alarm"
    assert "left what the members were trained on" in finding.message
    assert state_of(seen, "scores") == "ok"


@pytest.mark.parametrize("count", [10, 300])
def test_a_server_with_another_model_is_an_alarm_however_little_it_has_scored(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path, count: int
) -> None:
    counting.fingerprint = "another"
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, count))
        assert state_of(run_live(url, str(reward_model), history, LIMITS), "model") == "alarm"


def test_what_cannot_be_compared_is_not_called_right(counting: Counting, history: History) -> None:
    with serving(counting) as url:
        counting.add(scores=[0.0] * 300)
        assert state_of(run_live(url, "owner/name", history, LIMITS), "model") == "warning"
        with pytest.raises(CheckpointError, match="typo"):
            run_live(url, "./runs/old/typo", history, LIMITS)


def test_two_looks_at_once_see_each_score_once(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    counting.add(scores=like_reference(scorer, 1000))
    start = threading.Barrier(2)

    def look(url: str) -> None:
        with History(history.path) as opened:
            start.wait()
            run_live(url, str(reward_model), opened, LIMITS)

    with serving(counting) as url:
        threads = [threading.Thread(target=look, args=(url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one.metrics["scores"]["num"] for one in history.snapshots("live")] == [1000]


def test_counts_that_a_restart_lost_are_told(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, 300))
        run_live(url, str(reward_model), history, LIMITS)
        counting.restart()
        counting.add(scores=like_reference(scorer, 200))
        assert state_of(run_live(url, str(reward_model), history, LIMITS), "counting") == "warning"


def test_a_key_is_sent_and_its_lack_is_told(
    scorer: Scorer, counting: Counting, history: History, reward_model: Path
) -> None:
    counting.key = "k"
    with serving(counting) as url:
        counting.add(scores=like_reference(scorer, 300))
        with pytest.raises(DataError, match="401"):
            run_live(url, str(reward_model), history, LIMITS)
        assert run_live(url, str(reward_model), history, LIMITS, api_key="k").number is not None
        with pytest.raises(DataError, match="404"):
            run_live(f"{url}/elsewhere", str(reward_model), history, LIMITS, api_key="k")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "localhost:8000", "file:///etc/hostname"])
def test_what_is_no_server_is_told(url: str, history: History) -> None:
    with pytest.raises(DataError, match=url.split("//")[0]):
        run_live(url, "owner/rm", history, LIMITS, timeout_s=2)
    assert not history.snapshots()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[" * 100_000, "recursion"),
        (b'{"id": "x", "since": "y"', "delimiter|Expecting"),
        (b"[]", "something else"),
        (b'{"id": 5, "since": "y", "fingerprint": "f", "scores": 0, "tokens": 0, "disagreement": 0}', "something else"),
        (b'{"id": "x", "since": "y", "fingerprint": "f", "scores": {}, "tokens": 0, "disagreement": 0}', "scores: not"),
    ],
)
def test_an_answer_that_is_none_is_told(
    counting: Counting, history: History, monkeypatch: pytest.MonkeyPatch, body: bytes, told: str
) -> None:
    monkeypatch.setattr(Counting, "raw", lambda self: body)
    with serving(counting) as url, pytest.raises(DataError, match=told):
        run_live(url, "owner/rm", history, LIMITS)


def test_sums_that_are_no_numbers_are_told(counting: Counting, history: History) -> None:
    broken = counting.body()
    broken["scores"]["total"] = float("nan")
    counting.body = lambda: broken  # type: ignore[method-assign]
    with serving(counting) as url, pytest.raises(DataError, match="finite"):
        run_live(url, "owner/rm", history, LIMITS)


def test_a_server_that_drips_does_not_hold_the_run(counting: Counting, history: History) -> None:
    counting.pause = 0.2
    with serving(counting) as url, pytest.raises(DataError, match=r"within 0\.5 s"):
        run_live(url, "owner/rm", history, LIMITS, timeout_s=0.5)


def test_the_real_server_speaks_what_is_read(
    scorer: Scorer, history: History, reward_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application's own answer, handed over without a socket."""
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient
    from tests.serving.backends import InProcessBackend

    from rewardlab.serving.app import create_app
    from rewardlab.serving.settings import ServerSettings

    with TestClient(create_app(InProcessBackend(scorer), ServerSettings())) as client:
        for _ in range(3):
            client.post("/v1/rewards", json={"prompt": "2+2?", "completions": ["4", "five", "no"] * 12})
        monkeypatch.setattr(live, "_read", lambda *_: client.get(ROUTE).json())
        seen = run_live("http://rm", str(reward_model), history, LIMITS)
    assert seen.metrics["scores"]["num"] == 108
    assert state_of(seen, "model") == "ok"
