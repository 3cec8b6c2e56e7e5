"""A Scorer whose model is elsewhere: whatever takes a Scorer works over HTTP unchanged.

    scorer = RemoteScorer("http://127.0.0.1:8000")
    reward = RewardFunction(scorer, transforms="default")          # TRL's GRPO
    score_file(scorer, ["pairs.jsonl"], "scores.jsonl", settings=scorer.settings)

Its encoder asks the server (:mod:`rewardlab.serving.remote_encoding`); scoring reads what it said. What is not a score
is an exception. This file has no weights and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.client import BadAnswer, Reward, RewardClient, ScoringError, Unscored
from rewardlab.serving.remote_encoding import EncodedRemotely, Progress, RemoteEncoder, not_here
from rewardlab.types import PromptGroup, Scale

if TYPE_CHECKING:
    from torch import Tensor

    from rewardlab.modeling.loading import RewardModel

_AROUND = 2048  # bytes of a request's body beside its texts, and more


class ModelElsewhere:
    """What stands for a loaded model where there is only a server's.

    Args:
        folder: What the server calls its model, by which trainers name a reward in their logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> NoReturn:
        """Everything else of a model raises ConfigError."""
        if name.startswith("_"):  # what Python itself asks of any object
            raise AttributeError(name)
        raise not_here(f"the model's {name}")


class RemoteScorer(Scorer):
    """Scores completions with the model of a server.

    The server's model is looked up once. Should another answer later, that is an error: open a new RemoteScorer.

    Args:
        url: The server's address.
        api_key: Its key; by default the environment variable ``REWARDLAB_API_KEY``.
        scale: What scores are given in.
        **options: Of :class:`~rewardlab.serving.client.RewardClient` (``timeout``, ``retries``, ``deadline``,
            ``max_items``, ``concurrency``, ...).

    Attributes:
        client: The client.
        info: What the server says of its model, ``/info``'s ``model``.
        scale: As given.
        reference_scale: Mean, deviation and temperature of the server's model, without quantiles.
        encoder: Asks the server.
        num_truncated: Sequences cut to the maximum length so far.

    Raises:
        ConfigError: No address, or the server's model cannot give the scale.
        ServerError: The server does not say what it serves.
    """

    def __init__(self, url: str, *, api_key: str | None = None, scale: Scale = "raw", **options: Any) -> None:
        self.client = RewardClient(url, api_key=api_key, **options)
        info = _checked(self.client.info(), self.client.url)
        limits = info["limits"]
        self.client.max_items = min(self.client.max_items, limits["max_items"])
        self.client.max_bytes = min(self.client.max_bytes, max(1, limits["max_body_bytes"] - _AROUND))
        self.info: dict[str, Any] = info["model"]
        self.reference_scale = _scale_of(self.info)
        _require_scale(self.reference_scale, scale)
        self.scale = scale
        self.encoder = RemoteEncoder(self.client, info)
        self.num_truncated = 0

    def __repr__(self) -> str:
        """The server's address and its model's name; never the key."""
        return f"{type(self).__name__}({self.client.url!r}, model={self.info['name']!r}, scale={self.scale!r})"

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> NoReturn:
        """Nothing is loaded here: raises ConfigError."""
        raise ConfigError("a RemoteScorer loads no checkpoint", hint="RemoteScorer(url)")

    def close(self) -> None:
        """Close the connections."""
        self.client.close()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the server's model: equal for equal checkpoints, here or there."""
        return str(self.info["fingerprint"])

    @property
    def loaded(self) -> RewardModel:  # type: ignore[override]
        """A model that is not here: all but its name, ``loaded.folder``, raises ConfigError."""
        return cast("RewardModel", ModelElsewhere(Path(self.info["name"])))

    @property
    def layout(self) -> NoReturn:  # type: ignore[override]
        """Not over HTTP: raises ConfigError; ``info["layout"]`` names it."""
        raise not_here("why the layout was chosen")

    @property
    def read_out(self) -> NoReturn:  # type: ignore[override]
        """Not over HTTP: raises ConfigError; ``info["kind"]`` says where the model is read."""
        raise not_here("how rows of the head become a score")

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens in one forward, there."""
        return int(self.info["tokens_per_batch"])

    @property
    def contract(self) -> None:
        """None: the contract stays with the server, which has checked it; its hash is ``info["contract_sha256"]``."""
        return None

    @property
    def settings(self) -> dict[str, Any]:
        """Whatever the server says that decides the scores beside the checkpoint."""
        names = ("device", "dtype", "max_length", "layout", "members", "how", "members_scale")
        return {**{name: self.info.get(name) for name in names}, "scale": self.scale}

    @property
    def has_steps(self) -> bool:
        """Whether the server's is a process model."""
        return bool(self.info["kind"] == "step")

    @property
    def is_ensemble(self) -> bool:
        """Whether the server's is an ensemble."""
        return bool(self.info["members"])

    def score_groups(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> list[list[float]]:
        """As :meth:`Scorer.score_groups <rewardlab.scoring.scorer.Scorer.score_groups>`.

        Raises:
            ServerError: There is no answer that can be used.
            ScoringError: The model broke on a completion.
        """
        return self.score_encoded(self._asked(groups, progress))

    def score_groups_steps(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """As :meth:`Scorer.score_groups_steps <rewardlab.scoring.scorer.Scorer.score_groups_steps>`."""
        self._require_kind("step", "step scores", "process")
        return self.score_encoded_steps(self._asked(groups, progress))

    def score_groups_disagreement(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[float]]]:
        """As :meth:`Scorer.score_groups_disagreement <rewardlab.scoring.scorer.Scorer.score_groups_disagreement>`."""
        self._require_ensemble()
        return self.score_encoded_disagreement(self._asked(groups, progress))

    def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """As :meth:`Scorer.step_scores <rewardlab.scoring.scorer.Scorer.step_scores>`."""
        return self.score_groups_steps(groups)[1]

    def token_logits(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """Not over HTTP: raises ConfigError."""
        raise not_here("token logits")

    def score_encoded(self, encoded: Sequence[EncodedGroup], on_progress: Progress | None = None) -> list[list[float]]:
        """Scores of groups that this scorer's ``encoder`` gave.

        Args:
            encoded: The groups.
            on_progress: Called with the number of completions.

        Raises:
            CheckpointError: The model gives a completion NaN or inf.
            ScoringError: The model broke on a completion.
        """
        found = []
        for item in encoded:
            found.append([reward.on(self.scale) for reward in _rewards(item)])
            if on_progress is not None:
                on_progress(len(found[-1]))
        return found

    def score_encoded_steps(
        self, encoded: Sequence[EncodedGroup], on_progress: Progress | None = None
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """As :meth:`score_groups_steps`, of groups that this scorer's ``encoder`` gave."""
        self._require_kind("step", "step scores", "process")
        scores = self.score_encoded(encoded, on_progress)
        return scores, [[list(_there(r.step_scores, "step scores")) for r in _rewards(item)] for item in encoded]

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Progress | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        """As :meth:`score_groups_disagreement`, of groups that this scorer's ``encoder`` gave."""
        self._require_ensemble()
        scores = self.score_encoded(encoded, on_progress)
        return scores, [[_there(r.disagreement, "disagreement") for r in _rewards(item)] for item in encoded]

    def outputs(self, encoded: Sequence[EncodedGroup], on_progress: Progress | None = None) -> list[list[Tensor]]:
        """Not over HTTP: raises ConfigError."""
        raise not_here("the head's outputs")

    def scores_of(self, outputs: Sequence[Sequence[Tensor]]) -> NoReturn:
        """Not over HTTP: raises ConfigError."""
        raise not_here("the head's outputs")

    def _asked(self, groups: Sequence[PromptGroup], progress: bool) -> list[EncodedGroup]:
        """The groups as the server has scored them; the first that it cannot read raises."""
        if not progress:
            found = self.encoder.encode_many(groups)
        else:
            from rich.console import Console
            from rich.progress import Progress as Bar

            with Bar(console=Console(stderr=True), transient=True) as bar:
                task = bar.add_task("scoring", total=sum(len(group.completions) for group in groups))
                encoder = cast(RemoteEncoder, self.encoder)
                found = encoder.results_of(groups, lambda count: bar.advance(task, count))
        encoded = []
        for item in found:
            if isinstance(item, DataError):
                raise item
            encoded.append(item)
        self._count_truncated(encoded)
        return encoded

    def _require_kind(self, kind: str, what: str, objective: str) -> None:
        if self.info["kind"] != kind:
            raise ConfigError(
                f"the model of {self.client.url} gives no {what}: it is read per {self.info['kind']}",
                hint=f"serve a model trained with --objective {objective}",
            )

    def _require_ensemble(self) -> None:
        if not self.is_ensemble:
            raise ConfigError(
                f"{self.client.url} serves one model, with nobody to disagree with",
                hint="serve several, with commas between: rewardlab serve A,B,C",
            )


def _rewards(item: EncodedGroup) -> list[Reward]:
    """What the server said of a group's completions, if it said something of each."""
    if not isinstance(item, EncodedRemotely):
        raise ConfigError("these groups were encoded elsewhere", hint="encode them with this scorer's encoder")
    unscored = {index: result for index, result in enumerate(item.results) if isinstance(result, Unscored)}
    for index, result in unscored.items():
        if result.kind == "not_finite":
            raise CheckpointError(
                f"{item.group.name}: completion {index}: {result.message}",
                hint=result.hint or "score in float32; `rewardlab verify` tells whether the weights are broken",
            )
    if unscored:
        error = ScoringError.of(unscored, len(item.results))
        raise ScoringError(f"{item.group.name}: {error.message}", hint=error.hint, unscored=unscored)
    return [cast(Reward, result) for result in item.results]


def _there(value: Any, what: str) -> Any:
    if value is None:
        raise BadAnswer(f"the server gives a score without its {what}")
    return value


def _checked(info: dict[str, Any], url: str) -> dict[str, Any]:
    """``/info`` with what is needed of it.

    Raises:
        BadAnswer: It lacks something: this is another server, or another version.
    """
    model, limits = info.get("model"), info.get("limits")
    needed: dict[str, type] = {"fingerprint": str, "kind": str, "name": str, "max_length": int, "members": list}
    needed |= {"device": str, "dtype": str, "layout": str, "tokens_per_batch": int}
    bounds: dict[str, type] = dict.fromkeys(("max_items", "max_chars", "max_body_bytes"), int)
    wrong = [
        name
        for part, fields in ((model, needed), (limits, bounds))
        for name, kind in fields.items()
        if not (isinstance(part, dict) and isinstance(part.get(name), kind))
    ]
    if wrong:
        raise BadAnswer(
            f"GET {url}/info: the answer does not say {', '.join(wrong)}",
            hint="is this the address of a rewardlab server of this version?",
        )
    return info


def _scale_of(model: dict[str, Any]) -> ScoreScale:
    """The reference and temperature that ``/info`` tells; which quantiles the reference has, it does not."""
    known = model.get("reference")
    reference = None
    if known is not None:
        reference = ReferenceStatistics(
            "of the server's model", int(known["num_scores"]), float(known["mean"]), float(known["std"]), {}
        )
    return ScoreScale(reference, model.get("temperature"), model.get("unit") or "pair")


def _require_scale(known: ScoreScale, scale: Scale) -> None:
    """Refuse a scale now, not after hours; percentiles are the server's to give, from quantiles it keeps."""
    known.require("centered" if scale == "percentile" else scale)
