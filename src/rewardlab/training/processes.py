"""Connecting the processes of a run, before anything else asks how many there are.

transformers connects them when its arguments are made, and on a machine without a GPU it then takes DeepSpeed's
processes for lone ones. So they are connected here, and transformers is told to use what it finds.

This file knows accelerate's state and the environment that launchers set; it knows no model and no data.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import warnings
from contextlib import redirect_stdout
from datetime import timedelta
from typing import Any

import torch
from accelerate import PartialState

from rewardlab.errors import ConfigError, MissingDependencyError
from rewardlab.launching import is_started


def connect(*, use_cpu: bool = False, seconds: int = 1800) -> dict[str, Any]:
    """Connect this process with the others of its run; nothing where it is alone.

    Call it before a model is loaded and before ``RewardArguments`` are made.

    Args:
        use_cpu: Compute on the CPU although there is a GPU.
        seconds: How long a process waits for the others at an exchange; transformers' ``ddp_timeout``.

    Returns:
        What ``RewardArguments`` must be given beside the user's own.

    Raises:
        ConfigError: FSDP on a machine without a GPU, which accelerate does not do.
        MissingDependencyError: DeepSpeed is asked for and not installed.
    """
    on_cpu = use_cpu or not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed, where it is installed, else tells stdout
    if not is_started():
        return {}
    deepspeed, fsdp = (_is_asked_for(name) for name in ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"))
    if deepspeed and importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError(
            "ZeRO needs DeepSpeed", hint="pip install --no-build-isolation 'rewardlab[deepspeed]'"
        )
    if fsdp and on_cpu:
        raise ConfigError(
            "--launcher fsdp2 needs a GPU for each process: accelerate has no FSDP on the CPU",
            hint="--launcher zero3 divides a model on the CPU too",
        )
    # torch calls its own functions by names that it has since deprecated, at every collective of DeepSpeed.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    with redirect_stdout(sys.stderr):  # DeepSpeed prints what it builds, and logs to stdout, which belongs to data
        # accelerate takes cpu=True for "no DeepSpeed"; the device is the CPU anyway where there is no other.
        on = {"backend": "gloo"} if on_cpu else {}
        PartialState(cpu=on_cpu and not deepspeed, timeout=timedelta(seconds=seconds), **on)
    for handler in logging.getLogger("DeepSpeed").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    return {"accelerator_config": {"use_configured_state": True}}


def _is_asked_for(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
