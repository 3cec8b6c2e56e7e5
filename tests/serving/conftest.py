"""Fixtures of the server: small models, a backend in this process, and a client of the whole application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi.testclient import TestClient
    from tests.serving.backends import InProcessBackend


@pytest.fixture(scope="session")
def scorer(reward_model: Path) -> Scorer:
    """The session's reward model; sequences are at most 128 tokens."""
    return Scorer.from_pretrained(reward_model)


@pytest.fixture(scope="session")
def process_model(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small process model, one step old."""
    from rewardlab.studies.arithmetic import generate_solutions
    from rewardlab.training.run import train_reward_model

    folder = tmp_path_factory.mktemp("process") / "prm"
    groups = generate_solutions(0, 12, num_solutions=3)
    train_reward_model(
        model=base_model,
        train_groups=groups[:8],
        eval_groups=groups[8:],
        output_dir=folder,
        dtype="float32",
        overrides={"objective": "process", "max_length": 256, "max_steps": 1, "disable_tqdm": True},
    )
    return folder


@pytest.fixture(scope="session")
def process_scorer(process_model: Path) -> Scorer:
    """The process model, which has three classes; sequences are at most 256 tokens."""
    return Scorer.from_pretrained(process_model)


@pytest.fixture
def settings() -> ServerSettings:
    """The default settings."""
    return ServerSettings()


@pytest.fixture
def backend(scorer: Scorer) -> InProcessBackend:
    """The reward model, in this process."""
    from tests.serving.backends import InProcessBackend

    return InProcessBackend(scorer)


@pytest.fixture
def client(backend: InProcessBackend, settings: ServerSettings) -> Iterator[TestClient]:
    """A client of the whole application."""
    from fastapi.testclient import TestClient

    from rewardlab.serving.app import create_app

    with TestClient(create_app(backend, settings), raise_server_exceptions=False) as opened:
        yield opened
