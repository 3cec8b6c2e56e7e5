"""Whether a config asks for about as many weights as its folder holds, known before any of them is allocated.

A config.json with one digit too many asks for terabytes, and a machine without limits ends the process before an error
is told. This file knows config.json and the headers of safetensors files; it loads nothing.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from rewardlab.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_MOST_TIMES = 4
"""More than the weights of a file is no new head, tied embedding or other precision."""
_ALWAYS = 10_000_000
"""Elements that any machine has room for, so that a small model may start anything anew."""
_PACKED = {"U8": 4, "I8": 4, "I16": 8, "I32": 16, "I64": 32}
"""How many weights of two bits an element of an integer tensor of a quantized model may hold."""


def require_declared_size(folder: Path, config: PreTrainedConfig, model_class: Any) -> None:
    """Refuse a config that describes no model, or far more weights than the folder holds.

    Args:
        folder: The model's folder, with whole safetensors files.
        config: Its config.
        model_class: The one of transformers' auto classes that is to load it. A config that it has no class for, as
            those of a repository's own code, is left alone.

    Raises:
        CheckpointError: The model would have more layers than there are tensors, or more than four times their
            elements; or transformers makes no model of the config at all.
    """
    if type(config) not in model_class._model_mapping:
        return
    elements = tensors = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                elements += math.prod(part.get_shape()) * _PACKED.get(part.get_dtype(), 1)
                tensors += 1
    hint = "config.json was changed, or belongs to another model: restore it from a copy"
    layers = getattr(config.get_text_config(), "num_hidden_layers", None) or 0
    if layers > max(tensors, 1000):  # before so many are built, though without weights
        raise CheckpointError(f"{folder}: config.json says {layers:,} layers, there are {tensors:,} tensors", hint=hint)
    classes = model_class._model_mapping[type(config)]
    whole = classes[0] if isinstance(classes, tuple | list) else classes
    try:
        with torch.device("meta"):  # the class itself: from_config would give DeepSpeed's ZeRO-3 its weights to divide
            model = whole(copy.deepcopy(config))
    except Exception as error:  # what the values of a config lead to, which nobody documents
        raise CheckpointError(
            f"{folder}: config.json describes no model: {type(error).__name__}: {error}", hint=hint
        ) from error
    declared = sum(parameter.numel() for parameter in model.parameters())
    if declared > max(_MOST_TIMES * elements, _ALWAYS):
        raise CheckpointError(
            f"{folder}: config.json describes {declared:,} weights, and the files hold {elements:,}", hint=hint
        )
