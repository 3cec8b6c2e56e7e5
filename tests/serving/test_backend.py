"""What the HTTP side needs of a backend, and that each backend has it."""

from __future__ import annotations

import inspect

import pytest
from tests.serving.backends import InProcessBackend

from rewardlab.serving.backend import Backend
from rewardlab.serving.batching import BatchingBackend
from rewardlab.serving.items import ModelInfo
from rewardlab.serving.messages import WorkerSpec
from rewardlab.serving.metrics import Metrics
from rewardlab.serving.settings import ServerSettings

NAMES = sorted(name for name in vars(Backend) if not name.startswith("_"))


@pytest.mark.parametrize("kind", [BatchingBackend, InProcessBackend])
@pytest.mark.parametrize("name", [name for name in NAMES if not isinstance(vars(Backend)[name], property)])
def test_a_backend_has_every_method_as_it_is_declared(kind, name):
    declared, own = getattr(Backend, name), getattr(kind, name)
    assert inspect.iscoroutinefunction(own)
    assert list(inspect.signature(own).parameters) == list(inspect.signature(declared).parameters)


def test_a_backend_that_has_not_started_can_be_looked_at():
    """The application asks before its lifespan has begun, for /health."""
    backend: Backend = BatchingBackend(WorkerSpec("path"), ServerSettings(), Metrics())
    seen = {name: getattr(backend, name) for name in NAMES if isinstance(vars(Backend)[name], property)}
    model: ModelInfo | None = seen.pop("model")
    assert model is None
    assert seen == {"state": "loading", "reason": "the model is being loaded"}
