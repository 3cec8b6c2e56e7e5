"""The scorer that a name means: a reward model, an ensemble of several, or a policy with its reference.

open_scorer("runs/rm")                         # a reward model
open_scorer("runs/rm-1,runs/rm-2")             # an ensemble: the mean of the two
open_scorer("runs/rm", ensemble="min")         # the heads of one model that was trained with several
open_scorer("runs/dpo:models/sft")             # DPO's implicit reward: POLICY:REFERENCE
open_scorer("runs/dpo:")                       # the same without a reference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.errors import ConfigError
from rewardlab.modeling.lending import open_everywhere
from rewardlab.scoring.combining_scores import require_combinable
from rewardlab.scoring.ensemble import EnsembleScorer, open_members
from rewardlab.scoring.implicit import ImplicitRewardScorer
from rewardlab.scoring.names import members_of, policy_and_reference
from rewardlab.scoring.scorer import Scorer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["members_of", "models_of", "open_scorer", "policy_and_reference"]

_OF_POLICIES = ("beta", "length_normalised")
_OF_REWARD_MODELS = ("aggregation", "neutral_is_correct", "scale")


def open_scorer(
    path: str | Path,
    *,
    ensemble: str | None = None,
    k: float | None = None,
    weights: Sequence[float] | None = None,
    on: str | None = None,
    **options: Any,
) -> Scorer:
    """Load whatever a path names; where other processes lend their models, in those too.

    Args:
        path: A folder or hub id; ``POLICY:REFERENCE`` with one colon; or several of these with commas between, which
            are an ensemble. A folder that exists is one path whatever its name.
        ensemble: How the members' scores become one, as :class:`~rewardlab.scoring.ensemble.EnsembleScorer` has it,
            ``"mean"`` by default; of a single path, that its heads are the members.
        k: Of ``"mean-std"``, 1 by default.
        weights: Of ``"weighted"``.
        on: The members' common scale, ``"auto"`` by default.
        **options: Of :meth:`Scorer.from_pretrained <rewardlab.scoring.scorer.Scorer.from_pretrained>` or
            :meth:`ImplicitRewardScorer.from_pretrained
            <rewardlab.scoring.implicit.ImplicitRewardScorer.from_pretrained>`, for each; one that is None is not given.

    Raises:
        ConfigError: A path or policy is not named, or an option means nothing to this kind of scorer.
        CheckpointError: The model cannot be trusted to give scores.
    """
    request = {"path": path, "ensemble": ensemble, "k": k, "weights": weights, "on": on, **options}
    return open_everywhere(request, lambda: _open(**request), models_of)


def models_of(scorer: Scorer) -> list[PreTrainedModel]:
    """Every model that a scorer computes, in an order that its name and options decide."""
    return [checkpoint.model for checkpoint in scorer.checkpoints]


def _open(
    path: str | Path,
    ensemble: str | None,
    k: float | None,
    weights: Sequence[float] | None,
    on: str | None,
    **options: Any,
) -> Scorer:
    given = {name: value for name, value in options.items() if value is not None}
    of_ensembles: dict[str, Any] = {"k": k, "weights": weights, "on": on}
    of_ensembles = {name: value for name, value in of_ensembles.items() if value is not None}
    members = members_of(path)
    if members is None and ensemble is None:
        _refuse(of_ensembles, "one model", path, "name several with commas between, A,B,C")
        return _open_one(path, given)
    how = ensemble or "mean"
    if k is not None and how != "mean-std":
        raise ConfigError(f"k means nothing to {how!r}", hint="leave it out, or combine by 'mean-std'")
    _refuse(given.keys() & {"scale"}, "an ensemble", path, "its score has no reference set; leave the scale out")
    if members is not None:
        names = [str(member) for member in members]
        require_combinable(how, len(names), k=1.0 if k is None else k, weights=weights)  # before anything is loaded
        opened = open_members(names, lambda name: _open_one(name, given))
        return EnsembleScorer(opened, how, **of_ensembles, names=names)
    _refuse(given.keys() & set(_OF_POLICIES), "a reward model's heads", path, "leave it out")
    if policy_and_reference(path) is not None:
        raise ConfigError(f"{path} has no heads that could be combined by {how!r}", hint="leave the ensemble out")
    return EnsembleScorer.of_heads(path, how, **of_ensembles, **given)


def _open_one(path: str | Path, given: Mapping[str, Any]) -> Scorer:
    """A reward model, or a policy with its reference."""
    models = policy_and_reference(path)
    unknown = given.keys() & set(_OF_REWARD_MODELS if models else _OF_POLICIES)
    if models is None:
        _refuse(unknown, "a reward model", path, "an implicit reward is named POLICY:REFERENCE")
        return Scorer.from_pretrained(path, **given)
    _refuse(unknown, "a policy with its reference", path, "leave it out")
    return ImplicitRewardScorer.from_pretrained(*models, **given)


def _refuse(options: Iterable[str], kind: str, path: str | Path, hint: str) -> None:
    """Refuse options that mean nothing to a kind of scorer."""
    if first := next(iter(sorted(options)), None):
        raise ConfigError(f"{first} means nothing to {kind}: {path}", hint=hint)
