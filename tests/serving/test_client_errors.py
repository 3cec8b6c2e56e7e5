"""The client's exceptions: one tree, what they tell, and that they survive being sent to another process."""

from __future__ import annotations

import pickle

import pytest

from rewardlab.errors import RewardLabError
from rewardlab.serving import client_errors
from rewardlab.serving.client_errors import Attempt, ScoringError, ServerError, ServerUnavailable
from rewardlab.serving.reward_answers import Unscored


@pytest.mark.parametrize("name", ["ServerRefused", "ServerFailed", "ServerUnavailable", "BadAnswer", "ModelChanged"])
def test_whoever_catches_server_errors_catches_all_of_them(name: str):
    error = getattr(client_errors, name)("no", hint="do", status=418)
    assert isinstance(error, ServerError)
    assert isinstance(error, RewardLabError)
    assert (str(error), error.status) == ("no\nhint: do", 418)


def test_what_was_tried_survives_a_pickle():
    """Ray and multiprocessing pickle what a worker raises."""
    error = ServerUnavailable("gone", hint="look", status=503, attempts=[Attempt("503", 503, "full", 1.25)])
    back = pickle.loads(pickle.dumps(error))
    assert (back.message, back.hint, back.status, back.attempts) == ("gone", "look", 503, error.attempts)
    assert str(back.attempts[0]) == "at 1.2 s: 503, full"


def test_items_without_a_score_are_named_and_counted():
    unscored = {place: Unscored("too_long", f"{place} is long", "cut it") for place in range(2, 10)}
    error = ScoringError.of(unscored, 12)
    assert error.message.startswith("8 of 12 items have no score: item 2: 2 is long; item 3: 3 is long")
    assert error.message.endswith("; and 3 more")
    assert (error.hint, error.unscored) == ("cut it", unscored)
    assert pickle.loads(pickle.dumps(error)).unscored == unscored
