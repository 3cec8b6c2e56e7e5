"""On which scale members can be combined, and what is said where they cannot."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError
from rewardlab.scoring.common_scale import chosen_scale

REFERENCE = reference_statistics([1.0, 3.0], "held-out", "aaaa")
CALIBRATED = ScoreScale(REFERENCE, 2.0)
BARE = ScoreScale(REFERENCE, None)
NOTHING = ScoreScale(None, None)
CONSTANT = ScoreScale(reference_statistics([1.0, 1.0], "held-out", "aaaa"), None)
OUTCOMES = ScoreScale(REFERENCE, 2.0, "completion")


@pytest.mark.parametrize(
    ("scales", "on", "expected"),
    [
        ([CALIBRATED, CALIBRATED], "auto", "calibrated"),
        ([OUTCOMES, OUTCOMES], "auto", "calibrated"),
        ([CALIBRATED, BARE], "auto", "z"),
        ([CALIBRATED, OUTCOMES], "auto", "z"),
        ([CALIBRATED, CALIBRATED], "z", "z"),
        ([CALIBRATED, CONSTANT], "centered", "centered"),
        ([NOTHING, BARE], "raw", "raw"),
    ],
)
def test_the_best_scale_that_all_have(scales: list[ScoreScale], on: str, expected: str) -> None:
    assert chosen_scale(["a", "b"], scales, on) == expected


@pytest.mark.parametrize(
    ("scales", "on", "message", "hint"),
    [
        ([CALIBRATED, NOTHING], "auto", "no common scale: b: 'z' needs a reference set", "rewardlab calibrate b .*raw"),
        ([CONSTANT, BARE], "auto", "no common scale: a: scale 'z' needs a spread", "raw"),
        ([CALIBRATED, BARE], "calibrated", "b: 'calibrated' needs a temperature", "rewardlab calibrate b"),
        ([CALIBRATED, OUTCOMES], "calibrated", r"different things \(a: pairs, b: completions\)", "--ensemble-scale z"),
        ([CALIBRATED, CALIBRATED], "percentile", "members cannot be put on 'percentile'", "auto"),
    ],
)
def test_what_they_lack_is_named_with_the_fix(scales: list[ScoreScale], on: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        chosen_scale(["a", "b"], scales, on)
    import re

    assert re.search(hint, caught.value.hint)


def test_other_reference_sets_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    """A sha256 that is another, or is not known: the zeros may be of different completions."""
    caplog.set_level(logging.WARNING)
    chosen_scale(["a", "b"], [CALIBRATED, CALIBRATED], "auto")
    chosen_scale(["a"], [ScoreScale(replace(REFERENCE, sha256=None), 2.0)], "auto")  # alone, it is like itself
    assert caplog.text == ""
    for sha256 in ("bbbb", None):
        caplog.clear()
        other = ScoreScale(replace(REFERENCE, sha256=sha256, source="other.jsonl"), 2.0)
        chosen_scale(["a", "b"], [CALIBRATED, other], "auto")
        assert "reference sets are not the same (a: held-out, b: other.jsonl)" in caplog.text
    caplog.clear()
    other = ScoreScale(replace(REFERENCE, sha256="bbbb"), 2.0, "completion")
    chosen_scale(["a", "b"], [OUTCOMES, other], "calibrated")  # s / T: the reference set is not in it
    assert caplog.text == ""


def test_raw_scores_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    chosen_scale(["a", "b"], [NOTHING, NOTHING], "raw")
    assert "combined as they are" in caplog.text
