"""The scale on which the scores of several models can be combined.

Raw scores cannot: each training run chooses its own zero and its own unit. This file knows scales and the names of the
members; it knows no models.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast, get_args

from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError
from rewardlab.types import Scale

logger = logging.getLogger(__name__)

COMMON_SCALES = ("auto", *(scale for scale in get_args(Scale) if scale != "percentile"))
"""What members can be put on. Percentiles are not for it: they make equal what lies beyond the reference set."""

_CALIBRATE = "rewardlab calibrate {} --data F --reference R, with the same R for each"


def chosen_scale(names: Sequence[str], scales: Sequence[ScoreScale], on: str) -> Scale:
    """The scale in use, where every member can be put on it.

    Args:
        names: The members'.
        scales: What each member's scores can be put on, in the same order.
        on: ``"auto"``: ``"calibrated"`` where every member has a temperature fitted on the same unit, else ``"z"``; or
            one of :data:`COMMON_SCALES`.

    Raises:
        ConfigError: No such scale; a member has not what it needs; or temperatures of different units, of preferences
            and of outcomes.
    """
    if on not in COMMON_SCALES:
        raise ConfigError(f"members cannot be put on {on!r}", hint=f"one of {', '.join(COMMON_SCALES)}")
    if on == "auto":
        candidates: tuple[Scale, ...] = ("calibrated", "z")
        refused = [_refusal(names, scales, scale) for scale in candidates]
        found = next((scale for scale, error in zip(candidates, refused, strict=True) if error is None), None)
        if found is None:
            assert refused[-1] is not None
            raise refused[-1]
    else:
        found = cast(Scale, on)
        if error := _refusal(names, scales, found):
            raise error
    _warn(names, scales, found)
    return found


def _missing(scale: ScoreScale, name: Scale) -> str | None:
    """Why a member cannot be put on a scale."""
    try:
        scale.require(name)
    except ConfigError as error:
        return error.message
    return None


def _refusal(names: Sequence[str], scales: Sequence[ScoreScale], on: Scale) -> ConfigError | None:
    """Why the members cannot all be put on a scale."""
    for name, scale in zip(names, scales, strict=True):
        if missing := _missing(scale, on):
            return ConfigError(
                f"the members have no common scale: {name}: {missing}",
                hint=f"{_CALIBRATE.format(name)}; or combine raw scores, if you know them to be alike: "
                '--ensemble-scale raw (on="raw")',
            )
    units = {scale.unit for scale in scales}
    if on == "calibrated" and len(units) > 1:
        of_each = ", ".join(f"{name}: {scale.unit}s" for name, scale in zip(names, scales, strict=True))
        return ConfigError(
            f"the members' temperatures were fitted on different things ({of_each}): a logit of a preference is none "
            "of being correct",
            hint='put them on z-scores instead: --ensemble-scale z (on="z")',
        )
    return None


def _warn(names: Sequence[str], scales: Sequence[ScoreScale], on: Scale) -> None:
    """Say what makes the members' scores less comparable than they look."""
    if len(scales) == 1:
        return
    if on == "raw":
        logger.warning(
            "the members' raw scores are combined as they are: where their zeros or units differ, so do their votes"
        )
        return
    if on == "calibrated" and scales[0].unit == "completion":
        return  # zero is zero: no reference set is in it
    references = [scale.reference for scale in scales if scale.reference is not None]
    sets = {reference.sha256 for reference in references}
    if len(sets) > 1 or None in sets:
        of_each = ", ".join(f"{name}: {ref.source}" for name, ref in zip(names, references, strict=True))
        logger.warning(
            "the members' reference sets are not the same (%s), so their zeros are not either, which moves min, median "
            "and disagreement: %s",
            of_each,
            _CALIBRATE.format("each"),
        )
