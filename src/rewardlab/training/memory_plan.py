"""What a training run needs of each device, host and disk, before anything is loaded.

Parameters are counted exactly and activations tensor by tensor (:mod:`rewardlab.training.activations`); what engines
hold beside them follows from how they divide a model, which their sources and settings say. docs/memory.md has the
formulas.

This file knows bytes and launchers; it loads no weights and prints nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rewardlab.errors import CheckpointError, ConfigError, first_line
from rewardlab.launching import LAUNCHERS
from rewardlab.modeling.loading import load_config
from rewardlab.modeling.preparing import LoraOptions, Mode
from rewardlab.training.activations import CountedModel, Kept, ModelSize
from rewardlab.types import ReadOut

RUNTIME_BYTES = 2 * 10**9
"""Assumed, not computed: the CUDA context, NCCL's buffers, kernels' workspaces and what the allocator cannot use."""

FULL_BUDGET = 8192  # tokens of a forward that keep a GPU busy: the engine's own default there
_STEP_OF_BUDGET = 256
_FLOAT = 4
_DDP_COPIES = 1  # torch's reducer holds each gradient a second time, in its buckets
_BUCKET = 500_000_000  # elements: DeepSpeed's reduce_bucket_size
_LIVE = 1_000_000_000  # elements: DeepSpeed's stage3_max_live_parameters, and its sub_group_size
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """What one launcher needs of each device.

    Attributes:
        launcher: Its name.
        parts: Name -> bytes, what does not depend on the tokens.
        per_token: Bytes for each token of a forward that is pushed back.
        per_token_checkpointed: The same with gradient checkpointing.
        saved_by_checkpointing: Bytes of ``parts`` that gradient checkpointing saves, whatever the tokens.
    """

    launcher: str
    parts: dict[str, int]
    per_token: float
    per_token_checkpointed: float
    saved_by_checkpointing: int

    def total(self, tokens: int, *, checkpointing: bool) -> int:
        """Bytes at a token budget."""
        return self.fixed(checkpointing=checkpointing) + self.activations(tokens, checkpointing=checkpointing)

    def fixed(self, *, checkpointing: bool) -> int:
        """Bytes whatever the tokens."""
        return sum(self.parts.values()) - (self.saved_by_checkpointing if checkpointing else 0)

    def activations(self, tokens: int, *, checkpointing: bool) -> int:
        """Bytes of a forward's activations, and of their gradients in one layer."""
        return math.ceil(tokens * (self.per_token_checkpointed if checkpointing else self.per_token))

    def largest_budget(self, memory: int, *, checkpointing: bool) -> int | None:
        """The largest token budget that fits, a multiple of 256; 0 where none does, None where any does."""
        per_token = self.per_token_checkpointed if checkpointing else self.per_token
        room = memory - self.fixed(checkpointing=checkpointing)
        if room < 0:
            return 0
        return int(room / per_token) // _STEP_OF_BUDGET * _STEP_OF_BUDGET if per_token else None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a run needs, under every launcher.

    Attributes:
        model: As it was named.
        mode: Which parameters are trained.
        dtype: What is computed in.
        size: Of the model.
        processes: How many, all on one host.
        devices: Launcher -> what each device needs.
        host_bytes: CPU memory of the host: while each process loads the model, and while the first one verifies it.
        checkpoint_bytes: Launcher -> disk of one resumable checkpoint.
        model_bytes: Disk of the trained model.
    """

    model: str
    mode: Mode
    dtype: str
    size: ModelSize
    processes: int
    devices: dict[str, DevicePlan]
    host_bytes: int
    checkpoint_bytes: dict[str, int]
    model_bytes: int

    def recommended(self, memory: int, *, longest: int, tokens: int = FULL_BUDGET) -> Recommendation | None:
        """The simplest that fits: whole models before shards, nothing computed twice before checkpointing.

        Args:
            memory: Bytes of a device.
            longest: Tokens of the longest sequence, which must fit.
            tokens: The token budget that is wanted.

        Returns:
            None where not even one longest sequence fits.
        """
        choices = [
            Recommendation(name, checkpointing, _at_most(plan.largest_budget(memory, checkpointing=checkpointing)))
            for checkpointing in (False, True)
            for name, plan in self.devices.items()
        ]
        full = [choice for choice in choices if choice.tokens >= max(tokens, longest)]
        if full:
            return full[0]
        best = max(choices, key=lambda choice: choice.tokens)
        return best if best.tokens >= longest else None


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to run with.

    Attributes:
        launcher: Its name.
        checkpointing: Whether with gradient checkpointing.
        tokens: The largest token budget that fits.
    """

    launcher: str
    checkpointing: bool
    tokens: int


def plan_memory(
    model: str | Path,
    *,
    processes: int = 1,
    mode: Mode = "full",
    lora: LoraOptions | None = None,
    dtype: str = "auto",
    read_out: ReadOut | None = None,
    ensemble_heads: int = 1,
    trust_remote_code: bool = False,
) -> MemoryPlan:
    """Count what training a model needs, from its config alone.

    Args:
        model: Local folder or hub id, of which only ``config.json`` is read.
        processes: Devices, one process each, on one host.
        mode: Which parameters are trained.
        lora: Adapter options for mode ``"lora"``.
        dtype: What is computed in; ``"auto"`` is bfloat16, as on a GPU.
        read_out: What the head gives numbers for.
        ensemble_heads: How many heads.
        trust_remote_code: Run the model repository's own Python code.

    Raises:
        CheckpointError: There is no config, or it is of no model that can be trained.
        ConfigError: Something that cannot be planned.
    """
    if processes < 1:
        raise ConfigError(f"--processes {processes}", hint="1 or more")
    if lora and lora.load_in_4bit:
        raise ConfigError("a plan knows no 4-bit weights", hint="leave out lora.load_in_4bit to plan without them")
    read_out = read_out or ReadOut()
    config = load_config(_config_folder(model), trust_remote_code=trust_remote_code)
    config.num_labels = ensemble_heads if ensemble_heads > 1 else read_out.num_classes
    try:
        counted = CountedModel(config, kind=read_out.kind, mode=mode, lora=lora)
        low = torch.float32 if dtype == "float32" else torch.bfloat16
        alone = counted.kept(weights=torch.float32, computes_in=low)
        rounded = counted.kept(weights=low, computes_in=low)
        # Where nothing of the trunk is pushed back, one layer at a time is in memory.
        working = alone if mode != "head_only" else CountedModel(config, kind=read_out.kind).kept(computes_in=low)
    except (ValueError, TypeError, RuntimeError, NotImplementedError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{model}: no plan for a {config.model_type} model: {first_line(error)}",
            hint="train it with a small tokens_per_batch and see",
        ) from error
    size = counted.size
    devices = {
        name: _device(name, size, processes, alone, rounded, working, 2 if low == torch.bfloat16 else _FLOAT)
        for name in LAUNCHERS
        if processes > 1 or name == "ddp"
    }
    saved = size.trained if mode == "lora" else size.parameters
    return MemoryPlan(
        model=str(model),
        mode=mode,
        dtype="float32" if low == torch.float32 else "bfloat16",
        size=size,
        processes=processes,
        devices=devices,
        host_bytes=_FLOAT * size.parameters * max(processes, 2),
        checkpoint_bytes={name: _FLOAT * saved + (12 if "zero" in name else 8) * size.trained for name in devices},
        model_bytes=_FLOAT * size.parameters,
    )


def parse_bytes(text: str) -> int:
    """``80GB`` or ``79.6GiB`` as bytes.

    Raises:
        ConfigError: It is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS:
        raise ConfigError(f"--memory {text!r} is no size", hint="for example 80GB or 79.6GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _device(
    launcher: str, size: ModelSize, processes: int, alone: Kept, rounded: Kept, working: Kept, low: int
) -> DevicePlan:
    """What one device holds.

    Args:
        launcher: How the model is divided.
        size: Of the model.
        processes: By how many.
        alone: What a forward keeps in autocast over float32 weights.
        rounded: What it keeps where the engine rounds the weights itself.
        working: Of a forward and backward of a whole layer.
        low: Bytes of a number that is computed with.
    """
    kept = alone if launcher == "ddp" else rounded
    deepspeed = "zero" in launcher
    frozen, trained = size.parameters - size.trained, size.trained
    held = low if deepspeed else _FLOAT  # DeepSpeed rounds the weights and keeps float32 ones in its optimiser
    share = 1 if launcher == "ddp" else processes
    divided = processes if launcher in ("fsdp2", "zero3") else 1
    # ZeRO-2 keeps its own float32 weights also where the model's are float32; ZeRO-3 does not.
    master = _FLOAT if launcher == "zero2" or (launcher == "zero3" and low < _FLOAT) else 0
    parts = {
        "weights, frozen": frozen * held // divided,
        "weights, trained": trained * held // divided,
        "gradients": trained * (low if deepspeed else _FLOAT) // share,
        "AdamW's two moments": 2 * _FLOAT * trained // share,
        "DeepSpeed's float32 weights": master * trained // share,
        "autocast's copies of weights": kept.fixed,
        "communication": _communication(launcher, size, processes, low),
        "temporary, in the step": _in_step(launcher, trained, processes, low),
        "CUDA, NCCL, fragmentation (assumed)": RUNTIME_BYTES,
    }
    # Checkpointing frees a frozen layer's copy after the layer; autocast itself keeps those of trained ones.
    saved = round(kept.fixed * (1 - 1 / max(1, size.num_layers))) if trained < size.parameters / 2 else 0
    checkpointed = kept.between_per_token * (size.num_layers + 1) + kept.layer_per_token
    return DevicePlan(
        launcher=launcher,
        parts=parts,
        per_token=kept.per_token + working.layer_per_token,
        per_token_checkpointed=min(checkpointed, kept.per_token) + working.layer_per_token,
        saved_by_checkpointing=saved,
    )


def _communication(launcher: str, size: ModelSize, processes: int, low: int) -> int:
    """Buffers in which processes exchange weights and gradients."""
    if processes == 1:
        return 0
    if launcher == "ddp":
        return _DDP_COPIES * _FLOAT * size.trained
    if launcher == "fsdp2":
        # Two layers and what is beside the layers are whole at once; so are the gradients of those that are trained.
        gathered = min(size.parameters, 2 * size.largest_layer + size.beside_layers)
        return low * (gathered + min(size.trained, gathered))
    reduced = low * min(_BUCKET, size.trained)
    return reduced + (low * min(_LIVE, size.parameters) if launcher == "zero3" else 0)


def _in_step(launcher: str, trained: int, processes: int, low: int) -> int:
    """What the step itself needs for a moment: float32 gradients, where those of the backward are rounded."""
    if "zero" not in launcher or low == _FLOAT:
        return 0
    mine = trained // processes
    return _FLOAT * (mine if launcher == "zero2" else min(_LIVE, mine))


def _at_most(budget: int | None) -> int:
    return 1 << 30 if budget is None else budget


def _config_folder(model: str | Path) -> Path:
    """The folder of a model's config; of a hub id only that file is fetched."""
    path = Path(model)
    if path.exists() or path.is_absolute() or str(model).startswith((".", "~")) or str(model).count("/") > 1:
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(model), "config.json")).parent
    except Exception as error:  # the hub client's own errors are many and change; each means "not to be had"
        raise CheckpointError(
            f"{model}: no such local folder, and its config.json is not to be had from the hub: {first_line(error)}",
            hint="check the path or the hub id, and the network; a folder with only a config.json is enough",
        ) from error


def as_record(
    plan: MemoryPlan, *, tokens: int, checkpointing: bool, memory: int | None, longest: int
) -> Mapping[str, Any]:
    """The plan as JSON has it; sizes in bytes.

    Args:
        plan: The plan.
        tokens: The token budget.
        checkpointing: Whether with gradient checkpointing.
        memory: Bytes of a device, where they are known.
        longest: Tokens of the longest sequence.
    """
    found = None if memory is None else plan.recommended(memory, longest=longest, tokens=tokens)
    return {
        "model": plan.model,
        "mode": plan.mode,
        "dtype": plan.dtype,
        "parameters": plan.size.parameters,
        "trained": plan.size.trained,
        "processes": plan.processes,
        "tokens_per_batch": tokens,
        "gradient_checkpointing": checkpointing,
        "devices": {
            name: {
                "parts": device.parts,
                "activations": device.activations(tokens, checkpointing=checkpointing),
                "total": device.total(tokens, checkpointing=checkpointing),
                "checkpoint_bytes": plan.checkpoint_bytes[name],
                "largest_tokens_per_batch": None
                if memory is None
                else {
                    "without_checkpointing": device.largest_budget(memory, checkpointing=False),
                    "with_checkpointing": device.largest_budget(memory, checkpointing=True),
                },
            }
            for name, device in plan.devices.items()
        },
        "host_bytes": plan.host_bytes,
        "model_bytes": plan.model_bytes,
        "memory": memory,
        "recommended": None
        if found is None
        else {
            "launcher": found.launcher,
            "gradient_checkpointing": found.checkpointing,
            "tokens_per_batch": min(found.tokens, max(tokens, longest)),
        },
    }
