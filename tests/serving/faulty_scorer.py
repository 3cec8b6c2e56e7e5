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
SLOW = "PLEASE-WAIT"
SLOW_SECONDS = 0.3


def open_scorer(path: str | Path, **options: Any) -> Scorer:
    """As the real one; its scorer raises, gives NaN, hangs, kills its process or waits where a text asks for it."""
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
        if SLOW in said:
            time.sleep(SLOW_SECONDS)
        if RAISE in said:
            raise RuntimeError("a text asked for it")
        found = compute(encoded, on_progress)
        return [
            [one * float("nan") if NAN in text else one for one, text in zip(of_group, of_texts, strict=True)]
            for of_group, of_texts in zip(found, texts, strict=True)
        ]

    scorer.outputs = outputs  # type: ignore[method-assign]
    return scorer
