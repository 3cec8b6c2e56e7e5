"""A scorer whose scores are written into the completions, for tests of the monitor without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.data.encoding import EncodedGroup
from rewardlab.errors import CompletionTooLongError
from rewardlab.types import Pair, PromptGroup


def group(number: int, chosen: float, rejected: float, *, prompt: str | None = None, **more: Any) -> PromptGroup:
    """A comparison whose completions end with their scores; ``number`` makes their texts its own."""
    sides = (f"{number} yes {chosen!r}", f"{number} no {rejected!r}")
    pairs = more.pop("pairs", (Pair(0, 1),))
    return PromptGroup(
        f"p{number}?" if prompt is None else prompt, sides, pairs, source=f"rows.jsonl:{number + 1}", **more
    )


@dataclass
class StandIn:
    """Scores a completion by its last word, times a factor, plus a shift; "long" in a completion cannot be read."""

    factor: float = 1.0
    shift: float = 0.0
    fingerprint: str = "one" * 8
    temperature: float | None = None
    reference: tuple[float, ...] = ()
    contract: Any = None
    members: tuple[float, ...] = ()
    scale: str = "raw"
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def reference_scale(self) -> ScoreScale:
        reference = reference_statistics(self.reference, "held-out") if self.reference else None
        return ScoreScale(reference, self.temperature)

    @property
    def encoder(self) -> StandIn:
        return self

    @property
    def is_ensemble(self) -> bool:
        return bool(self.members)

    @property
    def contracts(self) -> dict[str, Any]:
        return {}

    @property
    def loaded(self) -> Any:
        model = SimpleNamespace(device=SimpleNamespace(type="cpu"))
        return SimpleNamespace(model=model, folder=Path("runs/rm"), contract=self.contract, dtype="float32")

    @property
    def checkpoints(self) -> tuple[Any, ...]:
        return (self.loaded,)

    @property
    def settings(self) -> dict[str, Any]:
        return {"dtype": "float32", "layout": "tree", **self.extra}

    def to_dict(self) -> dict[str, Any]:
        return {"on": "z"}

    def encode_many(self, groups: list[PromptGroup]) -> list[EncodedGroup | CompletionTooLongError]:
        return [
            CompletionTooLongError(f"{one.name}: completion 0 needs too many tokens", hint="shorten it")
            if any("long" in str(text) for text in one.completions)
            else EncodedGroup(one, tuple((1,) for _ in one.completions), 0, truncated=0)
            for one in groups
        ]

    def score_groups(self, groups: list[PromptGroup], *, progress: bool = False) -> list[list[float]]:
        return [[self.factor * float(str(c).split()[-1]) + self.shift for c in one.completions] for one in groups]

    def score_groups_members(self, groups: list[PromptGroup], *, progress: bool = False) -> Any:
        scores = self.score_groups(groups)
        return scores, [[[score + extra for extra in self.members] for score in one] for one in scores]
