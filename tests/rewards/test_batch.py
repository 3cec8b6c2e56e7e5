from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rewardlab.rewards import Offence, RewardBatch, RewardResult


def test_a_batch_is_its_scores_and_nothing_that_was_not_given():
    batch = RewardBatch(np.array([1.0, 2.0]))
    assert (batch.prompts, batch.baselines, batch.ended) == (None, None, None)


def test_a_result_without_more_has_no_offences_and_no_statistics():
    result = RewardResult(np.array([1.0]))
    assert (result.offences, dict(result.statistics)) == ((), {})


@pytest.mark.parametrize("record", [RewardBatch(np.zeros(1)), Offence(0, 1.0, "why"), RewardResult(np.zeros(1))])
def test_records_cannot_be_changed(record):
    field = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, field, None)
