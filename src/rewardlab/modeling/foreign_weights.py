"""The parts of others' reward models: weights read whole or refused, adapters put on, a head put on a trunk.

No pickles, no remote code, and nothing drawn at random in the place of what is missing. This file knows transformers'
and PEFT's files; which framework puts what into them is :mod:`rewardlab.modeling.foreign`'s.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification

from rewardlab.documents import read_json_object
from rewardlab.errors import CheckpointError, MissingDependencyError
from rewardlab.modeling.declared_size import require_declared_size
from rewardlab.modeling.head import Float32Head, head_name
from rewardlab.modeling.loading import open_safetensors, quiet_transformers, require_no_gaps, told_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

VALUE_HEAD = "value_head.safetensors"
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def load_whole(auto: Any, folder: Path, config: PreTrainedConfig, *, head_may_lack: bool = False) -> PreTrainedModel:
    """A model in float32, with every weight that its config speaks of.

    Args:
        auto: The transformers class to load it with.
        folder: Its folder.
        config: Its config.
        head_may_lack: Leave it to the caller to see whether the head is there.

    Raises:
        CheckpointError: Weights are missing, pickled, or of another shape.
    """
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise CheckpointError(
            f"{folder}: transformers has no *ForSequenceClassification class for model type {config.model_type!r}",
            hint="there is no plain model to import into",
        )
    if not any(path.name not in (VALUE_HEAD, ADAPTER) for path in folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder}: no weights (*.safetensors) beside {VALUE_HEAD}", hint="pickles are not read")
    require_declared_size(folder, config, auto)
    with quiet_transformers(), told_of(folder, "the model does not load", "was the folder copied whole?"):
        model, report = auto.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    lacking = sorted(report["missing_keys"])
    if head_may_lack:
        # Only where the shape is right or there is none: the caller looks for the head itself.
        lacking = [name for name in lacking if not name.startswith(head_name(model))]
    if auto is AutoModel:
        lacking = [name for name in lacking if "pooler" not in name]
    require_no_gaps(folder, [*map(str, report["mismatched_keys"]), *lacking])
    loaded: PreTrainedModel = model
    return loaded


def classifier(trunk: PreTrainedModel, weight: Tensor) -> PreTrainedModel:
    """The plain classifier with this trunk and this head, without a second copy of the trunk.

    Args:
        trunk: The trunk, without any head.
        weight: The head's weight, shape (1, hidden), float32.

    Raises:
        CheckpointError: The family's classifier has more than a linear layer behind the trunk.
    """
    config = copy.deepcopy(trunk.config)
    config.num_labels = 1
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config)
    name = head_name(model)
    parent, _, child = name.rpartition(".")
    head = Float32Head(weight.shape[1], 1, bias=False, device=trunk.device)
    with torch.no_grad():
        head.weight.copy_(weight)
    setattr(model.get_submodule(parent), child, head)
    setattr(model, model.base_model_prefix, trunk)
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if left:
        raise CheckpointError(
            f"{type(model).__name__} has more between trunk and score than a linear layer: {left[:3]}",
            hint="this family's classifier cannot hold such a head",
        )
    return model.eval()


def with_adapter(folder: Path, model: PreTrainedModel) -> nn.Module:
    """The model inside PEFT, with every tensor of the adapter's file in it.

    Args:
        folder: The adapter's folder.
        model: Its base model.

    Raises:
        CheckpointError: It is no LoRA adapter, or does not fit.
        MissingDependencyError: PEFT is not installed.
    """
    try:
        from peft import PeftModel, get_peft_model_state_dict
    except ImportError as error:
        raise MissingDependencyError("adapters need peft", hint="pip install 'rewardlab[lora]'") from error
    kind = read_json_object(folder / ADAPTER_CONFIG, CheckpointError).get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{folder}: an adapter of type {kind}, expected LORA", hint="only LoRA can be merged into a plain model"
        )
    with open_safetensors(folder / ADAPTER) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    embedding = cast(nn.Embedding, model.get_input_embeddings())
    (own_name,) = (name for name, module in model.named_modules() if module is embedding)
    grown = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith(f"{own_name}.weight")]
    if grown and grown[0] != embedding.num_embeddings:  # tokens were added before training
        model.resize_token_embeddings(grown[0], mean_resizing=False)
    hint = "name the base model that it was trained on with --base"
    with told_of(folder, "the adapter does not fit its base model", hint):
        adapted: nn.Module = PeftModel.from_pretrained(model, str(folder))
    held = get_peft_model_state_dict(adapted, save_embedding_layers=bool(grown))
    lost = [n for n, t in tensors.items() if n not in held or not torch.equal(held[n].float().cpu(), t.float())]
    if lost:
        raise CheckpointError(
            f"{folder}: {len(lost)} tensors of {ADAPTER} have no place in the base model: {lost[:3]}",
            hint="name the base model that it was trained on with --base",
        )
    return adapted


def checked_head(
    folder: Path, tensors: Mapping[str, Tensor], name: str, config: PreTrainedConfig
) -> tuple[Tensor, Tensor]:
    """Weight (1, hidden) and bias (1,) of a head in float32; a bias of zero where it has none.

    Raises:
        CheckpointError: It is missing, of another shape, or not finite.
    """
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias", torch.zeros(1))
    if weight is None:
        raise CheckpointError(
            f"{folder}: there is no trained head: expected {name}.weight, found {listed(tensors)}",
            hint="the head was not saved; it cannot be got back",
        )
    expected = (1, config.get_text_config().hidden_size)
    if tuple(weight.shape) != expected or tuple(bias.shape) != (1,):
        raise CheckpointError(
            f"{folder}: {name} has weight {tuple(weight.shape)} and bias {tuple(bias.shape)}, expected {expected} and "
            "(1,)",
            hint="this head belongs to another model, or gives more than one number",
        )
    if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise CheckpointError(f"{folder}: {name} holds NaN or infinite values", hint="the training run diverged")
    return weight.float(), bias.float()


def files_of_tensors(folder: Path) -> dict[str, Path]:
    """Tensor name -> the file that holds it."""
    return {name: path for path in sorted(folder.glob("*.safetensors")) for name in names_of(path)}


def names_of(path: Path) -> list[str]:
    """The names of the tensors in one file."""
    with open_safetensors(path) as file:
        return list(file.keys())


def read_tensor(folder: Path, name: str) -> Tensor:
    """One tensor of a folder, as it is saved."""
    with open_safetensors(files_of_tensors(folder)[name]) as file:
        tensor: Tensor = file.get_tensor(name)
        return tensor


def listed(names: Iterable[str]) -> str:
    """Names for an error message."""
    return ", ".join(sorted(names)[:12]) or "nothing"
