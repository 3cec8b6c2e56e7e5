"""What a training run is told: a flat recipe of our own keys and every field of :class:`RewardArguments`.

The command line, a YAML recipe and ``--set`` all fill this one record, so each key is written the same way everywhere
and an unknown one is told its nearest neighbour. A field of the arguments that nobody set keeps the value of the mode's
preset.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_type_hints

from rewardlab.modeling.preparing import LoraOptions
from rewardlab.training.arguments import RewardArguments

_UNSET: Any = object()
# Decided by rewardlab, or said by an option of its own (dtype, output).
_NOT_OFFERED = {
    "output_dir",
    "bf16",
    "fp16",
    "do_train",
    "do_eval",
    "do_predict",
    "remove_unused_columns",
    "label_names",
    "include_num_input_tokens_seen",
    "resume_from_checkpoint",
    # transformers' own evaluation loop and label smoothing, which rewardlab's take the place of.
    "label_smoothing_factor",
    "per_device_eval_batch_size",
    "eval_accumulation_steps",
    "eval_do_concat_batches",
    "batch_eval_metrics",
    "prediction_loss_only",
    "include_for_metrics",
}

_HINTS = get_type_hints(RewardArguments)

TrainRecipe = dataclasses.make_dataclass(
    "TrainRecipe",
    [
        ("model", str),
        ("data", list[str]),
        ("output", str),
        ("eval_data", list[str], dataclasses.field(default_factory=list)),
        ("eval_fraction", float, 0.0),
        ("mode", Literal["full", "lora", "head_only"], "full"),
        ("lora", LoraOptions, dataclasses.field(default_factory=LoraOptions)),
        ("dtype", Literal["auto", "float32", "bfloat16"], "auto"),
        ("format", str, "auto"),
        ("split", str | None, None),
        ("eval_split", str | None, None),
        ("max_bad_fraction", float, 0.05),
        *(
            (field.name, _HINTS[field.name], _UNSET)
            for field in dataclasses.fields(RewardArguments)
            if field.init and field.name not in _NOT_OFFERED
        ),
    ],
    namespace={
        "__doc__": """One training run: ``model``, ``data``, ``output``, and what differs from the preset.""",
        "__module__": __name__,
    },
)


def overrides_of(recipe: Any) -> dict[str, Any]:
    """The fields of :class:`RewardArguments` that the recipe sets."""
    names = {field.name for field in dataclasses.fields(RewardArguments)}
    return {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(recipe)
        if field.name in names and getattr(recipe, field.name) is not _UNSET
    }
