"""Bulk scoring on a Ray cluster: each actor holds the model, and reads, scores and writes whole parts of the files.

    with RayWorkers(partial(open_scorer, "runs/rm")) as workers:
        score_parts(workers, ["completions.parquet"], "scores/", settings=workers.settings)

Ray Data hands out the parts, starts an actor again that has died, and gives its part to another. What travels are the
places of rows and the accounts of parts, no texts and no scores: all machines must see the same files under the same
paths. This file knows Ray; it knows neither rows nor models.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rewardlab import errors
from rewardlab.errors import ConfigError, MissingDependencyError, RewardLabError
from rewardlab.scoring.bulk_rows import beside_scores
from rewardlab.scoring.parts import PartJob, score_part
from rewardlab.scoring.survey import FileSurvey, Part, PartReader, Source, survey_file

if TYPE_CHECKING:  # imported here it would bring torch into the tasks that only read
    from rewardlab.scoring.scorer import Scorer

_IN_FLIGHT = 2  # parts that an actor has been given: the next waits where the last is scored


class RayWorkers:
    """Actors on a Ray cluster, as :func:`~rewardlab.scoring.parts.score_parts` wants its workers; a context manager.

    Args:
        open_scorer: Opens the scorer, in each actor once; pickled, so a ``functools.partial`` rather than a closure.
        actors: How many; by default as many as the cluster has GPUs, else CPU cores.
        address: Of a cluster that runs, as ``ray.init`` takes it (``"auto"``, ``"host:6379"``); by default that of the
            environment (``RAY_ADDRESS``), else one that is started on this machine and ends with this process.
        use_gpus: Whether each actor has a GPU; by default if the cluster has any.

    Attributes:
        actors: How many there are.
        fingerprint: The model's.
        beside: What the model gives beside a score.
        settings: The scorer's, which decide the scores.
        told: ``{"scale"}``, of an ensemble ``{"scale", "ensemble"}``: what is said of the scorer to people.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: There are fewer GPUs or cores than actors, or the cluster cannot be reached.
        CheckpointError: The model cannot be trusted to give scores.
    """

    def __init__(
        self,
        open_scorer: Callable[[], Scorer],
        *,
        actors: int | None = None,
        address: str | None = None,
        use_gpus: bool | None = None,
    ) -> None:
        self._open_scorer = open_scorer
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        self._use_gpus = use_gpus
        self.actors = actors or 0
        self.fingerprint = ""
        self.beside: str | None = None
        self.settings: dict[str, Any] = {}
        self.told: dict[str, Any] = {}

    def __enter__(self) -> RayWorkers:
        """Connect, or start a cluster, and open the scorer once in a task to learn what it is."""
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingDependencyError(
                "the backend ray needs Ray Data", hint="pip install 'rewardlab[ray]'"
            ) from error
        self._ray = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            self._connect()
        try:
            self._count_actors()
            known = self._ask(_describe, self._open_scorer, num_gpus=self._gpus)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        self.fingerprint, self.beside = known["fingerprint"], known["beside"]
        self.settings, self.told = known["settings"], known["told"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Let go of the cluster; end it if it was started here."""
        if self._is_own:
            self._ray.shutdown()

    def surveys(self, sources: Sequence[Source]) -> Iterable[FileSurvey]:
        """The first pass over each file, each a task of its own."""
        task = self._ray.remote(num_cpus=1)(_answer)
        asked = [task.remote(os.getcwd(), survey_file, source) for source in sources]
        while asked:
            yield _accepted(self._ray.get(asked.pop(0)))

    def score(self, parts: Sequence[Part], job: PartJob, advance: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        """Score parts in the actors; what each says comes as it is done."""
        data = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False  # the command has its own
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        with redirect_stdout(sys.stderr):  # data alone goes to stdout
            pool = data.ActorPoolStrategy(size=min(self.actors, len(parts)), max_tasks_in_flight_per_actor=_IN_FLIGHT)
            resources = {"num_gpus": self._gpus} if self._gpus else {"num_cpus": 1}
            answers = data.from_items(
                [{"part": place} for place in range(len(parts))], override_num_blocks=len(parts)
            ).map_batches(
                _PartScorer,
                batch_size=1,
                compute=pool,
                fn_constructor_kwargs={
                    "cwd": os.getcwd(),
                    "open_scorer": self._open_scorer,
                    "known": {"fingerprint": self.fingerprint, "settings": self.settings},
                    "parts": list(parts),
                    "job": job,
                },
                **resources,
            )
            for answer in answers.iter_rows():
                entry = _accepted(json.loads(answer["answer"]))
                advance(entry["completions"])
                yield entry

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        if self._address == "local":
            quiet["include_dashboard"] = False
        try:
            with redirect_stdout(sys.stderr):
                self._ray.init(address=self._address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(
                f"no Ray cluster can be had at {self._address!r}: {error}",
                hint="`ray status --address ADDRESS` says whether one runs there",
            ) from error

    def _count_actors(self) -> None:
        """Settle how many actors there are, and whether each has a GPU."""
        found = self._ray.cluster_resources()
        gpus, cores = int(found.get("GPU", 0)), int(found.get("CPU", 0))
        has_gpus = bool(gpus) if self._use_gpus is None else self._use_gpus
        there, kind = (gpus, "GPUs") if has_gpus else (cores, "CPU cores")
        if not there or self.actors > there:
            raise ConfigError(
                f"{self.actors or 1} actors, and the cluster has {there} {kind}: each needs one",
                hint="give fewer actors, or join machines to the cluster first",
            )
        self._gpus = 1 if has_gpus else 0
        self.actors = self.actors or there

    def _ask(self, function: Callable[..., Any], *arguments: Any, num_gpus: int) -> Any:
        """One task's result; its error as it was raised there."""
        task = self._ray.remote(num_cpus=1, num_gpus=num_gpus)(_answer)
        return _accepted(self._ray.get(task.remote(os.getcwd(), function, *arguments)))


# -- in the actors ---------------------------------------------------------------------------------------------------


class _PartScorer:
    """One actor. An error that is one of ours is its answer: Ray would wrap it, and lose its hint."""

    def __init__(
        self,
        cwd: str,
        open_scorer: Callable[[], Scorer],
        known: dict[str, Any],
        parts: Sequence[Part],
        job: PartJob,
    ) -> None:
        self._cwd, self._parts, self._job = cwd, parts, job
        self._reader = PartReader()
        self._opened = _answer(cwd, _open_as, open_scorer, known)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Score one part; the answer is JSON."""
        (place,) = batch["part"]
        return {"answer": [json.dumps(_answer(self._cwd, self._score, self._parts[place]))]}

    def _score(self, part: Part) -> dict[str, Any]:
        scorer = _accepted(self._opened)
        return score_part(scorer, self._reader, part, self._job, lambda completions: None)


def _describe(open_scorer: Callable[[], Scorer]) -> dict[str, Any]:
    scorer = open_scorer()
    told: dict[str, Any] = {"scale": scorer.scale}
    if scorer.is_ensemble:
        told["ensemble"] = scorer.to_dict()  # type: ignore[attr-defined]
    return {
        "fingerprint": scorer.fingerprint,
        "settings": scorer.settings,
        "beside": beside_scores(scorer),
        "told": told,
    }


def _open_as(open_scorer: Callable[[], Scorer], known: dict[str, Any]) -> Scorer:
    """The scorer, where it is the one that the others have: on other hardware the layout may be another."""
    scorer = open_scorer()
    found = {"fingerprint": scorer.fingerprint, "settings": scorer.settings}
    if found != known:
        raise ConfigError(
            f"the machines of this cluster do not score alike: {found}, and elsewhere {known}",
            hint="state --engine and --dtype, and see that all machines have the same model",
        )
    return scorer


def _answer(cwd: str, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """What a function returns, or the error that it raises where it is one of ours or of the files."""
    try:
        os.chdir(cwd)  # names of files mean what they mean where the command runs
        return {"result": function(*arguments)}
    except RewardLabError as error:
        return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
    except OSError as error:
        return {
            "error": "RewardLabError",
            "message": f"in an actor: {error}",
            "hint": "every machine must see the files",
        }


def _accepted(answer: dict[str, Any]) -> Any:
    """The result of an answer; its error is raised."""
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"], hint=answer["hint"])
    return answer["result"]
