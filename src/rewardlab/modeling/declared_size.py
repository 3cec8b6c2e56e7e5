"""Whether a config asks for about as many weights as its folder holds, known before any of them is allocated.

A config.json with one digit too many asks for terabytes, and a machine without limits ends the process before an error
is told. This file knows config.json and the headers of safetensors files; it loads nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rewardlab.errors import CheckpointError
from rewardlab.modeling.foreign_weights import files_of_tensors, open_safetensors

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_MOST_TIMES = 4
"""More is no new head or tied embedding: 4-bit weights count half as many elements as they stand for."""
_ALWAYS = 10_000_000
"""Elements that any machine has room for, so that a small model may start anything anew."""


def require_declared_size(folder: Path, config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> None:
    """Refuse a config that describes far more weights than the folder holds.

    Args:
        folder: The model's folder, with safetensors files.
        config: Its config.
        model_class: One of transformers' auto classes.

    Raises:
        CheckpointError: The model would have more layers than there are tensors, or more than four times their
            elements; or transformers makes no model of the config at all.
    """
    elements = 0
    files = files_of_tensors(folder)
    for path in sorted(set(files.values())):
        with open_safetensors(path) as file:
            elements += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    hint = "config.json was changed, or belongs to another model: restore it from a copy"
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if layers > max(len(files), 1000):  # before so many are built, though without weights
        raise CheckpointError(
            f"{folder}: config.json says {layers:,} layers, there are {len(files):,} tensors", hint=hint
        )
    try:
        with torch.device("meta"):
            model = model_class.from_config(config)  # type: ignore[attr-defined]  # the auto classes' own
    except Exception as error:  # what the values of a config lead to, which nobody documents
        raise CheckpointError(f"{folder}: config.json describes no model: {error}", hint=hint) from error
    declared = sum(parameter.numel() for parameter in model.parameters())
    if declared > max(_MOST_TIMES * elements, _ALWAYS):
        raise CheckpointError(
            f"{folder}: config.json describes {declared:,} weights, and the files hold {elements:,}", hint=hint
        )
