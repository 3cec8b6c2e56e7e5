"""A real scorer in which words of a text make faults: what a worker opens in place of the real one, in fault tests.

The words are looked for in the ids that are about to be computed, decoded, so that everything before is the real thing.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.scoring import opening
from rewardlab.scoring.scorer import Scorer

if TYPE_CHECKING:
    from torch import Tensor

    from rewardlab.data.encoding import EncodedGroup

RAISE = "PLEASE-RAISE"
NAN = "PLEASE-NAN"
HANG = "PLEASE-HANG"
DIE = "PLEASE-DIE"
HOLD = "PLEASE-HOLD"
HELD_FILE = "FAULTY_SCORER_HELD"
"""The environment variable with the path of a file: HOLD makes it, and goes on when somebody has removed it."""


def open_scorer(path: str | Path, **options: Any) -> Scorer:
    """As the real one; its scorer raises, gives NaN, hangs, waits or kills its process where a text asks for it."""
    scorer = opening.open_scorer(path, **options)
    compute = scorer.outputs

    def outputs(
        encoded: Sequence[EncodedGroup], on_progress: Callable[[int], None] | None = None
    ) -> list[list[Tensor]]:
        texts = [[scorer.encoder.tokenizer.decode(ids) for ids in group.sequences] for group in encoded]
        said = "".join(text for of_group in texts for text in of_group)
        if DIE in said:
            os.kill(os.getpid(), signal.SIGKILL)
        if HANG in said:
            time.sleep(3600)
        if HOLD in said:
            held = Path(os.environ[HELD_FILE])
            held.touch()
            while held.exists():
                time.sleep(0.02)
                compute(encoded, None)  # each forward is a sign of life: it must not be taken for one that hangs
        if RAISE in said:
            raise RuntimeError("a text asked for it")
        found = compute(encoded, on_progress)
        return [
            [one * float("nan") if NAN in text else one for one, text in zip(of_group, of_texts, strict=True)]
            for of_group, of_texts in zip(found, texts, strict=True)
        ]

    scorer.outputs = outputs  # type: ignore[method-assign]
    return scorer
