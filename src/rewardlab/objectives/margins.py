"""How much better a completion is -> the margin by which its score should lead. Pure Python.

This file knows numbers, not where they come from: a pair's strength is its reader's.
"""

from __future__ import annotations

from rewardlab.errors import ConfigError, DataError

MARGINS = ("column", "constant", "difference", "llama2_large", "llama2_small")
"""Names of the mappings, see :func:`margin_of`."""

_LLAMA2 = {"llama2_large": (0.0, 1.0, 2.0, 3.0), "llama2_small": (0.0, 1 / 3, 2 / 3, 1.0)}
"""Margin of each level: 0 negligibly, 1 slightly, 2 plainly, 3 significantly better."""


def margin_of(pair_margin: float | None, strength: float | None, tie: bool, mapping: str, scale: float) -> float:
    """The margin of one pair.

    ================ ===============================================================================================
    mapping          margin of a strict pair
    ================ ===============================================================================================
    ``column``       its column ``margin`` as it is, 0 where it has none
    ``constant``     ``scale``
    ``difference``   ``scale * strength``, e.g. of the difference of two ratings
    ``llama2_large`` ``scale`` times 3, 2, 1, 0 for significantly, plainly, slightly, negligibly better
    ``llama2_small`` ``scale`` times 1, 2/3, 1/3, 0 for the same
    ================ ===============================================================================================

    Args:
        pair_margin: The pair's own margin, in score units; None where it has none.
        strength: How much better its preferred side is, >= 0; for the Llama 2 mappings one of the levels 3
            (significantly), 2, 1, 0 (negligibly better, or unsure). None where unknown.
        tie: Whether the two were judged equally good: then the margin is 0, whatever else is known.
        mapping: One of :data:`MARGINS`.
        scale: What the margin of every mapping but ``column`` is multiplied with.

    Returns:
        The margin, in score units.

    Raises:
        ConfigError: The mapping is none of these.
        DataError: The mapping needs a strength and there is none, or it is no level of the mapping.

    References:
        Touvron et al. 2023 (Llama 2, arXiv:2307.09288), eq. 2 and appendix A.3.3, table 27: "Margin Large" and
        "Margin Small".
    """
    if mapping not in MARGINS:
        raise ConfigError(f"unknown margin_from {mapping!r}", hint=f"one of {', '.join(MARGINS)}")
    if tie:
        return 0.0
    if mapping == "column":
        return 0.0 if pair_margin is None else pair_margin
    if mapping == "constant":
        return scale
    if strength is None:
        raise DataError(
            f"the pair has no strength, from which margin_from {mapping!r} makes its margin",
            hint="give the row a column strength, or both ratings; or choose margin_from column or constant",
        )
    if mapping == "difference":
        return scale * strength
    if strength not in (0, 1, 2, 3):
        raise DataError(
            f"strength {strength:g} is no level of margin_from {mapping!r}",
            hint="its levels are 0, 1, 2, 3 for negligibly, slightly, plainly, significantly better; for strengths on "
            "another scale choose margin_from difference",
        )
    return scale * _LLAMA2[mapping][int(strength)]
