"""What a head reads of each completion: the model's own features of it.

This file knows the engine; which of an ensemble's models is asked, the scorers say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from rewardlab.data.encoding import EncodedGroup
from rewardlab.modeling.engine import Engine

_GROUPS_AT_ONCE = 256  # models that are read at every token have a row for each, until they are averaged


def completion_features(
    engine: Engine,
    encoded: Sequence[EncodedGroup],
    readouts: Callable[[EncodedGroup], Sequence[Sequence[int]]],
    on_progress: Callable[[int], None] | None = None,
) -> list[NDArray[np.float32]]:
    """Features of every completion of some groups.

    Args:
        engine: Runs the model.
        encoded: Groups from the model's own encoder.
        readouts: Where each sequence of a group is read; nothing where that is its last token.
        on_progress: Called with the number of completions just computed.

    Returns:
        Per group shape (K, hidden), float32; where the head reads several tokens of a completion, their mean.

    Raises:
        CheckpointError: As :meth:`Engine.features <rewardlab.modeling.engine.Engine.features>`.
    """
    found: list[NDArray[np.float32]] = []
    for start in range(0, len(encoded), _GROUPS_AT_ONCE):
        groups = encoded[start : start + _GROUPS_AT_ONCE]
        sequences = [sequence for item in groups for sequence in item.sequences]
        positions = [own for item in groups for own in readouts(item)]
        rows = engine.features(sequences, positions or None, on_progress)
        if positions:
            each = iter([own.mean(dim=0).numpy() for own in rows.split([len(own) for own in positions])])
        else:
            each = iter(rows.numpy())
        found += [np.stack(list(islice(each, len(item.sequences)))) for item in groups]
    return found
