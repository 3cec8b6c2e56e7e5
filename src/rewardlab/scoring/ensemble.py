"""Several reward models, or several heads of one, whose scores become one; and how far they disagree.

    scorer = EnsembleScorer.from_pretrained(["runs/rm-1", "runs/rm-2", "runs/rm-3"], how="min")
    scores, disagreements = scorer.score_groups_disagreement(groups)

Raw scores of two models have no common zero and no common unit, so they are first put on a common scale, each by its
own reference set and temperature (:mod:`rewardlab.calibration.scale`). What is combined is then the ensemble's own raw
score: it has no reference set and no temperature of its own.

This file knows scorers and scales; how numbers are combined is :mod:`rewardlab.scoring.combining_scores`'.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewardlab.calibration.scale import ScoreScale
from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CheckpointError, ConfigError, RewardLabError
from rewardlab.modeling.contract import Contract
from rewardlab.modeling.ensemble_heads import head_scores, load_heads, require_heads_hold, use_heads
from rewardlab.modeling.loading import RewardModel
from rewardlab.scoring.combining_scores import combine, disagreement, require_combinable
from rewardlab.scoring.common_scale import chosen_scale
from rewardlab.scoring.ensemble_encoding import EncodedForMembers, EnsembleEncoder, same_ids
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup, ReadOut, Scale

logger = logging.getLogger(__name__)


class EnsembleScorer(Scorer):
    """Scores completions with several scorers, the members, and combines what they give.

    Args:
        members: Scorers of raw scores, also of different architectures, tokenizers and kinds; or one checkpoint's
            heads (:meth:`of_heads`).
        how: How the members' scores become one: ``"mean"``, ``"min"``, ``"median"``, ``"mean-std"`` or ``"weighted"``
            (:func:`~rewardlab.scoring.combining_scores.combine`).
        k: Of ``"mean-std"``: how many standard deviations are subtracted.
        weights: Of ``"weighted"``: one per member.
        on: The members' common scale: ``"calibrated"``, ``"z"``, ``"centered"`` or ``"raw"``; ``"auto"`` is calibrated
            where every member has a temperature fitted on the same unit, else z.
        names: What the members are called in messages and results; by default their folders.

    Attributes:
        members: Their names.
        how: As given.
        k: As given.
        weights: As given.
        on: The common scale in use.
        loaded: The first member's model.
        layout: The layout that one has.
        encoder: Encodes for all members; those that read the same ids share the work.
        scale: Always ``"raw"``: the ensemble's own score.
        reference_scale: Empty.

    Raises:
        ConfigError: The members cannot be combined so, or are not all on the scale; a member gives other than raw
            scores.
    """

    def __init__(
        self,
        members: Sequence[Scorer],
        how: str = "mean",
        k: float = 1.0,
        weights: Sequence[float] | None = None,
        on: str = "auto",
        *,
        names: Sequence[str] | None = None,
    ) -> None:
        if not members:
            raise ConfigError("an ensemble without members", hint="name at least one")
        self.members = tuple(names or (str(member.loaded.folder) for member in members))
        for name, member in zip(self.members, members, strict=True):
            if member.scale != "raw":
                raise ConfigError(
                    f"member {name} gives its scores on the scale {member.scale!r}, expected raw ones",
                    hint="load it without a scale; `on` says what the members' scores are put on",
                )
        self._combine_by(how, k, weights)
        self._fill([_Model(member) for member in members], [member.reference_scale for member in members], on)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # of several paths
        cls,
        paths: Sequence[str | Path],
        how: str = "mean",
        k: float = 1.0,
        weights: Sequence[float] | None = None,
        on: str = "auto",
        **options: Any,
    ) -> EnsembleScorer:
        """Load several reward models, each checked against its own contract.

        Args:
            paths: Local folders or hub ids.
            how: As for the class.
            k: As for the class.
            weights: As for the class.
            on: As for the class.
            **options: Of :meth:`Scorer.from_pretrained <rewardlab.scoring.scorer.Scorer.from_pretrained>`, for each.

        Raises:
            ConfigError: As for the class, or an option cannot be used.
            CheckpointError: A member cannot be trusted to give scores; names it.
        """
        require_combinable(how, len(paths), k=k, weights=weights)
        opened = open_members([str(path) for path in paths], lambda path: Scorer.from_pretrained(path, **options))
        return cls(opened, how, k, weights, on, names=[str(path) for path in paths])

    @classmethod
    def of_heads(
        cls,
        path: str | Path,
        how: str = "mean",
        k: float = 1.0,
        weights: Sequence[float] | None = None,
        on: str = "auto",
        *,
        verify: bool = True,
        **options: Any,
    ) -> EnsembleScorer:
        """Load one checkpoint that was trained with several heads; its trunk is computed once for all of them.

        Args:
            path: A local folder or a hub id.
            how: As for the class.
            k: As for the class.
            weights: As for the class.
            on: As for the class.
            verify: As for ``Scorer.from_pretrained``; each head must also give its own stored scores.
            **options: The others of there.

        Raises:
            ConfigError: The checkpoint has one head; as for the class; or an option cannot be used.
            CheckpointError: The model or its heads cannot be trusted to give scores.
        """
        scorer = Scorer.from_pretrained(path, verify=verify, **options)
        heads = load_heads(scorer.loaded.folder, scorer.contract)
        if heads is None or scorer.contract is None:
            raise ConfigError(
                f"{path} has one head: there is no ensemble to combine by {how!r}",
                hint="name several models with commas between, A,B,C; or train one with several heads",
            )
        if verify:
            require_heads_hold(scorer.loaded, heads, scorer.layout.layout)
        else:
            use_heads(scorer.loaded.model, heads)
        ensemble = cls.__new__(cls)
        ensemble.members = tuple(f"{path} head {number}" for number in range(len(heads)))
        ensemble._combine_by(how, k, weights)
        scales = [record.scale for record in scorer.contract.heads]
        ensemble._fill([_Trunk(scorer)], scales, on)
        return ensemble

    def _combine_by(self, how: str, k: float, weights: Sequence[float] | None) -> None:
        require_combinable(how, len(self.members), k=k, weights=weights)
        self.how, self.k = how, k
        self.weights = None if weights is None else tuple(float(weight) for weight in weights)

    def _fill(self, sources: Sequence[_Source], scales: Sequence[ScoreScale], on: str) -> None:
        """What a scorer has, made of the sources of the members' raw scores."""
        self.on: Scale = chosen_scale(self.members, scales, on)
        self._sources, self._scales = list(sources), list(scales)
        scorers = [source.scorer for source in sources]
        if len({scorer.fingerprint for scorer in scorers}) < len(scorers):
            logger.warning("two members are the same checkpoint, and never disagree with each other")
        self._encoder_of = same_ids([scorer.encoder for scorer in scorers])
        firsts = [self._encoder_of.index(number) for number in range(max(self._encoder_of) + 1)]
        self.encoder = EnsembleEncoder(
            [scorers[first].encoder for first in firsts], [self.members[first] for first in firsts]
        )
        self.loaded = scorers[0].loaded
        self.layout = scorers[0].layout
        self.read_out = ReadOut()  # to the outside there is one number per completion
        self.scale = "raw"
        self.reference_scale = ScoreScale(None, None)
        self.num_truncated = 0

    @property
    def is_ensemble(self) -> bool:
        """True."""
        return True

    @property
    def contract(self) -> Contract | None:
        """None: what the members' contracts promise is of their own scores."""
        return None

    @property
    def contracts(self) -> dict[str, Contract]:
        """The contract of each checkpoint among the members that has one, by its folder."""
        loaded = [source.scorer.loaded for source in self._sources]
        return {str(model.folder): model.contract for model in loaded if model.contract is not None}

    @property
    def checkpoints(self) -> tuple[RewardModel, ...]:
        """The members' models, in their order; one where the members are heads of one trunk."""
        return tuple(model for source in self._sources for model in source.scorer.checkpoints)

    @property
    def tokens_per_batch(self) -> int:
        """Most tokens in one forward of any member."""
        return max(source.scorer.tokens_per_batch for source in self._sources)

    def num_tokens(self, encoded: EncodedGroup) -> int:
        """Tokens that the members' models together are given for a group, each sequence counted whole."""
        by_encoder = cast(EncodedForMembers, encoded).by_encoder
        return sum(
            source.scorer.num_tokens(by_encoder[number])
            for source, number in zip(self._sources, self._encoder_of, strict=True)
        )

    @property
    def fingerprint(self) -> str:
        """Equal where the members, their order, and how they are combined are."""
        parts = [[source.scorer.fingerprint for source in self._sources], len(self.members), self._combination]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def settings(self) -> dict[str, Any]:
        """As of a scorer: of each model, and how they are combined."""
        models = [source.scorer.settings for source in self._sources]
        return {**self._combination, "models": models}

    def to_dict(self) -> dict[str, Any]:
        """``{"members", "how", "k", "weights", "on"}``; ``k`` and ``weights`` are None where they mean nothing."""
        return {"members": list(self.members), **self._combination}

    @property
    def _combination(self) -> dict[str, Any]:
        return {
            "how": self.how,
            "k": self.k if self.how == "mean-std" else None,
            "weights": None if self.weights is None else list(self.weights),
            "on": self.on,
        }

    def outputs(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[Tensor]]:
        """The members' scores on their common scale.

        Args:
            encoded: Groups encoded by this scorer's ``encoder``.
            on_progress: Called with a number of completions; all are told when each member has scored each.

        Returns:
            Per group and completion a tensor of shape (members,), float64, on the CPU.

        Raises:
            CheckpointError: A member gives a score that is not finite; names it.
        """
        groups = [cast(EncodedForMembers, item) for item in encoded]
        advance = None if on_progress is None else _shared(on_progress, len(self._sources))
        columns: list[Tensor] = []
        for source, number in zip(self._sources, self._encoder_of, strict=True):
            raw = source.scores([item.by_encoder[number] for item in groups], advance)
            columns += raw.unbind(dim=1)
        scaled = [self._scaled(member, column) for member, column in enumerate(columns)]
        rows = torch.stack(scaled, dim=1).unbind() if groups else ()
        found = iter(rows)
        return [[next(found) for _ in item.sequences] for item in groups]

    def _scaled(self, member: int, raw: Tensor) -> Tensor:
        values = raw.tolist()
        if not all(map(math.isfinite, values)):
            wrong = next(value for value in values if not math.isfinite(value))
            raise CheckpointError(
                f"member {self.members[member]} gives a score of {wrong}, and a score must be finite",
                hint="score in float32; `rewardlab verify` tells whether its weights themselves are broken",
            )
        return torch.tensor(self._scales[member].transform(values, self.on), dtype=torch.float64)

    def scores_of(self, outputs: Sequence[Sequence[Tensor]]) -> tuple[list[list[float]], list[list[list[float]]]]:
        """The one score of each completion.

        Args:
            outputs: Of :meth:`outputs`.

        Returns:
            Scores per group and completion; and nothing, for there are no step scores.
        """
        options: dict[str, Any] = {"k": self.k, "weights": self.weights}
        return [combine(_table(of_group), self.how, **options).tolist() for of_group in outputs], []

    def score_groups_disagreement(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[float]]]:
        """As :meth:`Scorer.score_groups_disagreement <rewardlab.scoring.scorer.Scorer.score_groups_disagreement>`."""
        return self._with_disagreement(self._outputs_with_bar(self._encoded(groups), progress))

    def score_encoded_disagreement(
        self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> tuple[list[list[float]], list[list[float]]]:
        """As :meth:`score_groups_disagreement`, of groups encoded by this scorer's ``encoder``."""
        return self._with_disagreement(self.outputs(encoded, on_progress))

    def _with_disagreement(self, outputs: Sequence[Sequence[Tensor]]) -> tuple[list[list[float]], list[list[float]]]:
        return self.scores_of(outputs)[0], [disagreement(_table(of_group)).tolist() for of_group in outputs]

    def features(self, groups: Sequence[PromptGroup], *, progress: bool = False) -> list[NDArray[np.float32]]:
        """The first member's; as :meth:`Scorer.features <rewardlab.scoring.scorer.Scorer.features>`."""
        return self._sources[0].scorer.features(groups, progress=progress)

    def score_groups_members(
        self, groups: Sequence[PromptGroup], *, progress: bool = False
    ) -> tuple[list[list[float]], list[list[list[float]]]]:
        """Scores as :meth:`score_groups`, and every member's own on the common scale, in one pass.

        Args:
            groups: The groups.
            progress: Show a progress bar on stderr.

        Returns:
            Scores per group and completion; and per group and completion one score per member.
        """
        outputs = self._outputs_with_bar(self._encoded(groups), progress)
        return self.scores_of(outputs)[0], [[of_one.tolist() for of_one in of_group] for of_group in outputs]


def open_members(names: Sequence[str], open_one: Callable[[str], Scorer]) -> list[Scorer]:
    """Open each member; an error says which it was of.

    Args:
        names: What names each.
        open_one: Opens one.

    Raises:
        RewardLabError: As ``open_one``, in its own class.
    """
    opened = []
    for number, name in enumerate(names, start=1):
        try:
            opened.append(open_one(name))
        except RewardLabError as error:
            message = f"member {number} of {len(names)}, {name}: {error.message}"
            raise type(error)(message, hint=error.hint) from error
    return opened


class _Source(Protocol):
    """What gives the raw scores of one member, or of several in one pass."""

    scorer: Scorer

    def scores(self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None) -> Tensor:
        """Shape (completions, members), float64."""


class _Model:
    """A member that is a scorer of its own."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def scores(self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None) -> Tensor:
        scores = self.scorer.score_encoded(encoded, on_progress)
        return torch.tensor([score for of_group in scores for score in of_group], dtype=torch.float64).reshape(-1, 1)


class _Trunk:
    """The members that are heads of one trunk."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def scores(self, encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None) -> Tensor:
        sequences = [sequence for item in encoded for sequence in item.sequences]
        return head_scores(self.scorer._engine, sequences, on_progress).double()


def _table(of_group: Sequence[Tensor]) -> Any:
    """The members' scores of one group, shape (completions, members), as numpy has them."""
    return torch.stack(list(of_group)).numpy()


def _shared(on_progress: Callable[[int], None], parts: int) -> Callable[[int], None]:
    """Progress of parts that each score everything, told as progress of the whole."""
    done = told = 0

    def advance(completions: int) -> None:
        nonlocal done, told
        done += completions
        if new := done // parts - told:
            told += new
            on_progress(new)

    return advance
