"""What a refresh takes from the model that it is to replace: settings, base model, lineage.

A refresh trains from the base model, never from the old weights, for one epoch on old and new rows together. Reward
models overfit within epochs: Llama 2 trained its own for one, since more led to overfitting, and collected preferences
anew every week for the policy of the week, adding them to the old (Touvron et al. 2023, arXiv:2307.09288, 3.2). Weights
that have seen the old rows would see them twice.

The rows are :mod:`rewardlab.training.refresh_rows`'.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rewardlab.config import from_record
from rewardlab.documents import read_json_object
from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.contract import FILE_NAME, MOST_ANCESTORS, Contract, load_contract
from rewardlab.modeling.loading import fingerprint_of, resolve_folder
from rewardlab.training.arguments import RewardArguments
from rewardlab.training.recipe import overrides_of
from rewardlab.training.run import MANIFEST, TRAINING_FOLDER

_ARGUMENTS = "arguments.json"

# What presets and data decide: always taken as it was. Of the rest what was not the default.
_OF_PRESETS = ("objective", "learning_rate", "warmup_steps", "max_length", "per_device_train_batch_size")
_NOT_LEARNED = ("num_train_epochs", "logging_steps", "eval_steps", "save_steps", "save_total_limit")
_OF_TRANSFORMERS = (
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "optim",
    "optim_args",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "neftune_noise_alpha",
    "seed",
    "data_seed",
)


@dataclass(frozen=True, slots=True)
class _Run:
    """What a refresh reads of ``training/run.json``; its other keys are not looked at."""

    base_model: str
    mode: str
    objective: dict[str, Any]
    base_path: str | None = None
    base_fingerprint: str | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for source in self.sources:
            if not isinstance(source.get("role"), str) or not isinstance(source.get("sha256"), str):
                raise ValueError("each of sources must have role and sha256 as text")


_RUN_KEYS = [one.name for one in dataclasses.fields(_Run)]


@dataclass(frozen=True, slots=True)
class OldRun:
    """The run that made a model, as its folder tells it.

    Attributes:
        folder: The model's folder.
        fingerprint: The checkpoint's.
        contract: Its contract.
        run: ``training/run.json``.
        arguments: ``training/arguments.json``.
    """

    folder: Path
    fingerprint: str
    contract: Contract
    run: Mapping[str, Any]
    arguments: Mapping[str, Any]

    def settings(self) -> dict[str, Any]:
        """Keys of a recipe with the old run's values: what decides what is learned, but not for how long."""
        mode = self.run["mode"]
        found: dict[str, Any] = {"mode": "full" if mode == "encoder" else mode}
        if mode == "lora" and "lora" in self.run:
            found["lora"] = self.run["lora"]
        if self.contract.training.get("precision") in ("float32", "bfloat16"):
            found["dtype"] = self.contract.training["precision"]
        own = [name for name in RewardArguments.__annotations__ if name not in _NOT_LEARNED]
        for name in dict.fromkeys((*_OF_PRESETS, *own, *_OF_TRANSFORMERS)):
            value = self.arguments.get(name)
            usual = _default(name)
            if name in self.arguments and (name in _OF_PRESETS or (value != usual and (value or usual))):
                found[name] = value
        return found

    def not_repeated(self) -> list[str]:
        """What the old run did otherwise and a refresh does not do again, in words."""
        epochs, steps = self.arguments.get("num_train_epochs", 1), self.arguments.get("max_steps", -1)
        found = [f"{epochs:g} epochs"] if epochs != 1 else []
        return found + ([f"max_steps = {steps}"] if steps > 0 else [])

    def base_model(self, place: str | None = None) -> str:
        """The base model, found again.

        Args:
            place: Where it is now; by default where it was.

        Raises:
            CheckpointError: It is not there, or another model is.
            ConfigError: The old model itself was named.
        """
        where = place or self.run.get("base_path") or self.run["base_model"]
        if os.path.isdir(where) and Path(where).resolve() == self.folder.resolve():
            raise ConfigError(
                f"--model {where} is the model that is to be replaced",
                hint="a refresh trains from its base model; leave --model out",
            )
        try:
            folder = resolve_folder(where)
        except CheckpointError as error:
            raise CheckpointError(
                f"the base model of {self.folder} is not to be had: {error.message}",
                hint="name its new place with --model",
            ) from error
        expected = self.run.get("base_fingerprint")
        if expected is not None and (found := fingerprint_of(folder)) != expected:
            raise CheckpointError(
                f"{where} is not the base model that {self.folder} was trained from: its fingerprint is {found[:16]}, "
                f"expected {expected[:16]}",
                hint="name the right one with --model, or train on another base without --refresh",
            )
        return str(where)

    def overrides(self, base: str) -> list[str]:
        """The base model and the settings as ``key=value`` texts, as ``--set`` has them."""
        return [f"{name}={json.dumps(value)}" for name, value in {"model": base, **self.settings()}.items()]

    def lineage(self) -> list[dict[str, Any]]:
        """The lineage of what replaces this model: this one, then its own ancestors, at most ``MOST_ANCESTORS``."""
        data = {
            role: {name: record[name] for name in ("sha256", "num_groups") if name in record}
            for role in ("train", "held_out")
            if (record := self.contract.data.get(role))
        }
        own = {
            "name": self.folder.resolve().name,
            "fingerprint": self.fingerprint,
            "contract_sha256": hashlib.sha256((self.folder / FILE_NAME).read_bytes()).hexdigest(),
            "versions": {
                name: number
                for name, number in self.contract.versions.items()
                if name in ("rewardlab", "torch", "transformers")
            },
            "data": data,
            "held_out_accuracy": self.contract.held_out_metrics.get("accuracy"),
        }
        return [own, *self.contract.lineage][:MOST_ANCESTORS]


def read_old_run(folder: str | Path) -> OldRun:
    """What a model's folder tells of the run that made it.

    Raises:
        CheckpointError: It is no folder, has no contract, or does not tell.
    """
    path = Path(folder)
    if not path.is_dir():
        raise CheckpointError(f"--refresh {folder}: no such folder", hint="name the model that is to be replaced")
    contract = load_contract(path)
    records = [path / TRAINING_FOLDER / name for name in (MANIFEST, _ARGUMENTS)]
    missing = [record for record in records if not record.is_file()]
    if contract is None or missing:
        raise CheckpointError(
            f"{folder}: {missing[0] if missing else FILE_NAME} is not there, so how it was trained is not known",
            hint="only a model trained by `rewardlab train` can be refreshed, with the folder training/ beside it",
        )
    run, arguments = (read_json_object(record, CheckpointError, strict=True) for record in records)
    try:
        from_record(_Run, {name: run[name] for name in _RUN_KEYS if name in run})
    except ValueError as error:
        raise CheckpointError(f"{records[0]}: not a run: {error}", hint="restore the file from a copy") from error
    return OldRun(path, fingerprint_of(path), contract, run, arguments)


def inheritance_told(old: OldRun, recipe: Any) -> list[str]:
    """What a recipe took from the old run and what it has otherwise, one line each.

    Args:
        old: The old run.
        recipe: The recipe as it was filled, the user's own options over what was inherited.
    """
    kept, changed = [], []
    before = old.settings()
    told_now = (overrides_of(recipe).keys() & old.arguments.keys()) - before.keys() - set(_NOT_LEARNED)
    before |= {name: old.arguments[name] for name in sorted(told_now)}  # the usual value then, another one now
    for name, value in before.items():
        now = getattr(recipe, name)
        now = dataclasses.asdict(now) if dataclasses.is_dataclass(now) and not isinstance(now, type) else now
        if now == value:
            kept.append(f"{name} {_shown(value)}")
        else:
            changed.append(f"{name} {_shown(now)} (was {_shown(value)})")
    epochs = overrides_of(recipe).get("num_train_epochs", 1)
    lines = [
        f"refreshing {old.folder} ({old.fingerprint[:16]}): from its base model {recipe.model}, on old and new rows, "
        f"{'one epoch' if epochs == 1 else f'{epochs:g} epochs'}",
        f"inherited: {', '.join(kept) or 'nothing'}",
    ]
    if changed:
        lines.append(f"overridden: {', '.join(changed)}")
    if otherwise := old.not_repeated():
        lines.append(f"not inherited: {', '.join(otherwise)}")
    if old.run["mode"] == "lora" and "lora" not in old.run:
        lines.append("the old run does not say what adapters it had: the default ones are trained")
    return lines


def _default(name: str) -> Any:
    field = RewardArguments.__dataclass_fields__[name]
    if callable(field.default_factory):
        return field.default_factory()
    return getattr(field.default, "value", field.default)  # of an enum what JSON has


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
