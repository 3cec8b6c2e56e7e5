"""A Scorer over HTTP gives what the Scorer behind the server gives, to everything that takes a Scorer."""

from __future__ import annotations

import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend
from tests.serving.scripted_server import Handler, scripted, served

from rewardlab.adapters.rewarding import Rewarder
from rewardlab.adapters.trl import RewardFunction
from rewardlab.adapters.verl import make_compute_score
from rewardlab.errors import CheckpointError, CompletionTooLongError, ConfigError, DataError
from rewardlab.evaluation.readable import readable
from rewardlab.modeling.head import head_name
from rewardlab.scoring.bulk import score_file
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving import retrying
from rewardlab.serving.app import create_app
from rewardlab.serving.client import BadAnswer, ModelChanged, ScoringError
from rewardlab.serving.items import ItemRefusal, ItemScore
from rewardlab.serving.remote_scorer import RemoteScorer
from rewardlab.serving.settings import ServerSettings
from rewardlab.types import Pair, PromptGroup, Step

LONG = "the sea and the wind of Paris " * 60
GROUPS = [
    PromptGroup("Write about the sea.", ("the sea is long and the wind is short", "a poem"), (Pair(0, 1),), id=1),
    PromptGroup("\n\nHuman: a transcript as text\n\nAssistant:", ("but the sea",), id=2),
    PromptGroup("", ("a poem about Paris", "", "of the sea"), id="three"),
    PromptGroup("the sea " * 200, ("a prompt that is cut",), id=4),
]
STEPS = [PromptGroup("What is 2 + 2?", ("2 + 2 = 4\nso 4", "2 + 2 = 5"), steps=((Step("2 + 2 = 4"), Step("so 4")), ()))]


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """Serves a backend until the end of the module."""
    with ExitStack() as stack:
        yield lambda backend, **options: stack.enter_context(served(create_app(backend, ServerSettings(**options))))


@pytest.fixture(scope="module")
def url(scorer: Scorer, serve: Callable[..., str]) -> str:
    return serve(InProcessBackend(scorer))


@pytest.fixture(scope="module")
def remote(url: str) -> RemoteScorer:
    """The session's reward model over HTTP, two items to a request."""
    return RemoteScorer(url, max_items=2)


@pytest.fixture(scope="module")
def ensemble(scorer: Scorer, reward_model: Path) -> EnsembleScorer:
    """Two members that disagree."""
    import torch

    other = Scorer.from_pretrained(reward_model)
    head = other.loaded.model.get_submodule(head_name(other.loaded.model))
    with torch.no_grad():
        head.weight.add_(0.3 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(1)))
    other.loaded = replace(other.loaded, fingerprint="another")
    return EnsembleScorer([scorer, other], names=["a", "b"])


def flat(values: Any) -> list[float]:
    return [number for value in values for number in flat(value)] if isinstance(values, list) else [values]


def approx(values: Any) -> Any:
    return pytest.approx(flat(values), abs=1e-6)


# -- as the Scorer behind it -------------------------------------------------------------------------------------------


def test_scores_are_the_scorer_s(scorer: Scorer, remote: RemoteScorer):
    assert flat(remote.score_groups(GROUPS, progress=True)) == approx(scorer.score_groups(GROUPS))
    assert remote.num_truncated == 1
    prompts = ["\n\nHuman: hello\n\nAssistant: hi\n\nHuman: more\n\nAssistant:", [{"role": "user", "content": "b"}]]
    completions = ["an answer", [{"role": "assistant", "content": "another"}]]
    assert remote.score(prompts, completions) == approx(scorer.score(prompts, completions))
    assert remote.score([], []) == []


@pytest.mark.parametrize("scale", ["centered", "z", "percentile"])
def test_scales_are_the_scorer_s(reward_model: Path, url: str, scale: Any):
    here = Scorer.from_pretrained(reward_model, scale=scale).score_groups(GROUPS)
    assert flat(RemoteScorer(url, scale=scale).score_groups(GROUPS)) == pytest.approx(flat(here), abs=1e-4)


def test_a_scale_that_cannot_be_given_is_refused_at_once(url: str):
    with pytest.raises(ConfigError, match="needs a temperature"):
        RemoteScorer(url, scale="calibrated")
    with pytest.raises(ConfigError, match="no scale"):
        RemoteScorer(url, scale="stars")  # type: ignore[arg-type]


def test_disagreements_are_the_ensemble_s(ensemble: EnsembleScorer, serve: Callable[..., str]):
    there = RemoteScorer(serve(InProcessBackend(ensemble)))
    assert there.is_ensemble
    for mine, theirs in zip(
        there.score_groups_disagreement(GROUPS), ensemble.score_groups_disagreement(GROUPS), strict=True
    ):
        assert flat(mine) == approx(theirs)
    assert max(flat(there.score_groups_disagreement(GROUPS)[1])) > 0.01


def test_steps_are_the_process_model_s(process_scorer: Scorer, serve: Callable[..., str]):
    there = RemoteScorer(serve(InProcessBackend(process_scorer)))
    assert there.has_steps
    here = process_scorer.score_groups_steps(STEPS)
    for mine, theirs in zip(there.score_groups_steps(STEPS), here, strict=True):
        assert flat(mine) == approx(theirs)
    assert [len(steps) for steps in there.step_scores(STEPS)[0]] == [len(steps) for steps in here[1][0]]
    with pytest.raises(ConfigError, match="nobody to disagree with"):
        there.score_groups_disagreement(STEPS)
    separator = process_scorer.read_out.separator
    bad = PromptGroup("p", ("ab",), steps=((Step(f"a{separator}"), Step("b")),))
    for one in (process_scorer, there):  # the same class of error, so that adapters leave this completion alone
        assert type(one.encoder.encode_many([bad])[0]).__name__ == "StepBoundaryError"


def test_it_says_of_the_model_what_the_scorer_says(scorer: Scorer, remote: RemoteScorer):
    assert remote.fingerprint == scorer.fingerprint
    same = {name: scorer.settings[name] for name in ("device", "dtype", "max_length", "layout", "scale")}
    assert same.items() <= remote.settings.items()
    json.dumps(remote.settings)
    assert remote.encoder.max_length == scorer.encoder.max_length
    assert remote.reference_scale.reference.mean == scorer.reference_scale.reference.mean  # type: ignore[union-attr]
    assert (remote.has_steps, remote.is_ensemble, remote.scale) == (False, False, "raw")


def test_what_has_no_score_raises_as_in_the_process(scorer: Scorer, remote: RemoteScorer):
    for one in (scorer, remote):
        with pytest.raises(CompletionTooLongError):
            one.score(["p", "p"], ["good", LONG])
        with pytest.raises(DataError):
            one.score(["p"], ["a", "b"])
        with pytest.raises(ConfigError):
            one.step_scores(GROUPS)
        with pytest.raises(ConfigError):
            one.score_groups_disagreement(GROUPS)


@pytest.mark.parametrize(
    "use",
    [
        lambda s: s.token_logits(GROUPS),
        lambda s: s.outputs([]),
        lambda s: s.scores_of([]),
        lambda s: s.loaded.model,
        lambda s: s.loaded.tokenizer,
        lambda s: s.layout,
        lambda s: s.read_out,
        lambda s: s.encoder.tokenizer,
        lambda s: RemoteScorer.from_pretrained("http://x"),
        lambda s: EnsembleScorer([s, s], names=["a", "b"]),
        lambda s: s.score_encoded([object()]),
    ],
)
def test_what_needs_the_model_here_is_a_clear_error(remote: RemoteScorer, use: Callable[[RemoteScorer], Any]):
    with pytest.raises(ConfigError):
        use(remote)


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "error"), [("not_finite", CheckpointError), ("failed", ScoringError)])
def test_what_the_model_broke_on_is_an_exception(serve: Callable[..., str], kind: Any, error: type[Exception]):
    backend = FixedBackend([ItemScore(1.5, 3), ItemRefusal(kind, "the model gives nan"), ItemScore(2.5, 3)])
    there = RemoteScorer(serve(backend))
    with pytest.raises(error, match="the model gives nan"):
        there.score_groups([PromptGroup("p", ("a", "b", "c"))])


def test_another_model_is_an_error_in_the_middle_of_work(serve: Callable[..., str]):
    backend = FixedBackend()
    there = RemoteScorer(serve(backend))
    there.score(["p"], ["a"])
    backend.info = replace(backend.info, fingerprint="e" * 16)
    with pytest.raises(ModelChanged):
        there.score(["p"], ["b"])
    assert RemoteScorer(there.client.url).score(["p"], ["b"]) == [0.0]


def test_a_restart_with_the_same_checkpoint_is_waited_for_and_one_with_another_is_an_error(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
):
    """The port is the same; the first request after the restart comes while nobody listens yet."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(fingerprint: str = scorer.fingerprint) -> AbstractContextManager[str]:
        backend = InProcessBackend(scorer)
        backend.info = replace(backend.info, fingerprint=fingerprint)
        return served(create_app(backend, ServerSettings()), port)

    with start() as address:
        there = RemoteScorer(address, timeout=10.0, retries=30)
        before = there.score(["p"], ["the sea"])
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(there.score, ["p"], ["a poem"])
        time.sleep(0.2)
        assert not waiting.done()
        with start():
            assert waiting.result() == approx(scorer.score(["p"], ["a poem"]))
            assert there.score(["p"], ["the sea"]) == before
    with start("e" * 16) as address:
        with pytest.raises(ModelChanged, match="the model eeeeeeeeeeee answered"):
            there.score(["p"], ["of Paris"])
        assert RemoteScorer(address).score(["p"], ["of Paris"]) == approx(scorer.score(["p"], ["of Paris"]))


def test_its_repr_tells_where_the_model_is_and_not_the_key(serve: Callable[..., str]):
    address = serve(FixedBackend(name="my-rm"), api_key="k3y")
    assert repr(RemoteScorer(address, api_key="k3y")) == f"RemoteScorer('{address}', model='my-rm', scale='raw')"


def test_a_long_text_is_not_sent_where_it_would_take_its_neighbours_along(scorer: Scorer, serve: Callable[..., str]):
    """The server refuses a whole request with such an item (413); here it is that completion's own error."""
    there = RemoteScorer(serve(InProcessBackend(scorer), max_chars=200, max_items=3, max_body_bytes=4096))
    found = there.encoder.encode_many(
        [PromptGroup("p", (f"answer {n}",)) for n in range(9)] + [PromptGroup("p", (LONG,))]
    )
    assert [type(item).__name__ for item in found] == ["EncodedRemotely"] * 9 + ["CompletionTooLongError"]


@pytest.mark.parametrize("info", [{}, {"model": {}, "limits": {}}, {"model": None, "limits": 3}])
def test_another_server_is_told_from_ours(info: dict[str, Any]):
    def act(handler: Handler) -> None:
        handler.send(200, json.dumps(info).encode())

    with scripted(act) as server, pytest.raises(BadAnswer, match="fingerprint"):
        RemoteScorer(server.url)


# -- whatever takes a Scorer -------------------------------------------------------------------------------------------


def test_trl_s_reward_function_takes_it(scorer: Scorer, remote: RemoteScorer):
    """One completion does not fit: None, and its neighbours keep theirs."""
    prompts, completions = ["Write."] * 4, ["the sea", LONG, "a poem", "\ud800"]
    here, there = (
        RewardFunction(one, transforms=[{"ref": {"source": "contract"}}], name="r") for one in (scorer, remote)
    )
    found, expected = there(prompts=prompts, completions=completions), here(prompts=prompts, completions=completions)
    assert [one is None for one in found] == [one is None for one in expected] == [False, True, False, True]
    assert [one for one in found if one is not None] == approx([one for one in expected if one is not None])
    assert RewardFunction(remote).__name__ == "rm"
    again = pickle.loads(pickle.dumps(there))
    assert again(prompts=prompts[:1], completions=completions[:1]) == approx(found[:1])


def test_the_rewarder_and_verl_take_it(scorer: Scorer, remote: RemoteScorer):
    args = (["a", "a", "b"], ["the sea", "a poem", "of Paris"])
    scored = [Rewarder(one, transforms="default").reward(*args).rewards_or_none() for one in (scorer, remote)]
    assert scored[1] == approx(scored[0])
    compute = make_compute_score(remote)
    assert [compute("", "the sea", extra_info={"prompt": "a"})["score"]] == approx(scorer.score(["a"], ["the sea"]))


def test_bulk_scoring_takes_it(scorer: Scorer, remote: RemoteScorer, tmp_path: Path):
    rows = [{"prompt": f"p{n}", "chosen": f"the sea {n}", "rejected": LONG if n == 3 else "a poem"} for n in range(7)]
    source = tmp_path / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = {}
    for name, one in (("here", scorer), ("there", remote)):
        result = score_file(one, [source], tmp_path / name, chunk_rows=3, settings=one.settings)
        made[name] = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        assert (result.rows, result.quarantined_rows) == (7, 1)
    for mine, theirs in zip(made["there"], made["here"], strict=True):
        assert mine.keys() == theirs.keys()
        if "error" in mine:
            assert mine == theirs
            continue
        assert mine.pop("chosen_score") == pytest.approx(theirs.pop("chosen_score"), abs=1e-6)
        assert mine.pop("rejected_score") == pytest.approx(theirs.pop("rejected_score"), abs=1e-6)
        assert mine == theirs


def test_sorting_rows_and_scoring_them_asks_the_server_once(scorer: Scorer, serve: Callable[..., str]):
    backend = InProcessBackend(scorer)
    there = RemoteScorer(serve(backend))
    sorted_out = readable(there.encoder, [*GROUPS, PromptGroup("p", (LONG,))])
    assert (len(sorted_out.groups), len(sorted_out.left_out), sorted_out.truncated) == (4, 1, 1)
    before = len(backend.asked)
    assert flat(there.score_groups(sorted_out.groups)) == approx(scorer.score_groups(sorted_out.groups))
    assert len(backend.asked) == before
