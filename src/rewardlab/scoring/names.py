"""What the name of a scorer says: one model, the members of an ensemble, or a policy with its reference.

members_of("runs/rm-1,runs/rm-2")              # ["runs/rm-1", "runs/rm-2"]
policy_and_reference("runs/dpo:models/sft")    # ("runs/dpo", "models/sft")
short_name("runs/dpo:models/sft")              # "dpo"

This file knows names and which folders exist; it loads nothing and needs no torch.
"""

from __future__ import annotations

import os
from pathlib import Path

from rewardlab.errors import CheckpointError, ConfigError


def members_of(path: str | Path) -> list[str] | None:
    """The members that ``A,B,C`` names; None where it is one path. A folder that exists is one whatever its name.

    Raises:
        ConfigError: There is nothing before, after or between two commas.
    """
    text = str(path)
    if "," not in text or os.path.exists(text):
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConfigError(f"{text}: a member has no name", hint="name models with commas between: A,B,C")
    return names


def policy_and_reference(path: str | Path) -> tuple[str, str | None] | None:
    r"""The two models that ``POLICY:REFERENCE`` names; None where it is one path.

    A folder that exists is one path whatever its name, and so are a drive (``C:\models``) and an address
    (``hf://...``). ``POLICY:`` has no reference.

    Raises:
        ConfigError: There is no policy before the colon.
    """
    text = str(path)
    policy, colon, reference = text.partition(":")
    if not colon or ":" in reference or os.path.exists(text) or reference.startswith(("//", "\\")):
        return None
    if not policy:
        raise ConfigError(f"{text}: there is no policy before the colon", hint="name both: POLICY:REFERENCE")
    return policy, reference or None


def require_models(path: str | Path, *, contract: bool = False) -> None:
    """Refuse a name whose folders hold no models, before a process is started and torch loaded to say so.

    What looks like a hub id passes, for only the hub knows it.

    Args:
        path: As :func:`~rewardlab.scoring.opening.open_scorer` has it.
        contract: Whether each folder must have a contract too.

    Raises:
        ConfigError: It names nothing.
        CheckpointError: It names what is no folder, or a folder without ``config.json``, or without a contract.
    """
    for name in members_of(path) or [str(path)]:
        for one in policy_and_reference(name) or (name,):
            if one is not None:
                _require_model(one, contract)


def _require_model(name: str, contract: bool) -> None:
    from rewardlab.modeling.contract import FILE_NAME  # it loads numpy, which the help of a command does not want

    if not name.strip() or "\0" in name:
        raise ConfigError(f"{name!r} names no model", hint="name the folder that holds config.json, or a hub id")
    folder = Path(name)
    if not os.path.isdir(folder):
        if os.path.exists(folder):
            raise CheckpointError(
                f"{name} is a file, expected a model folder", hint="name the folder that holds config.json"
            )
        if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
            raise CheckpointError(f"no such folder: {name}", hint="check the path")
    elif not (folder / "config.json").exists():
        adapter = ", only a PEFT adapter" if (folder / "adapter_config.json").exists() else ""
        raise CheckpointError(
            f"{name}: no config.json{adapter}",
            hint="merge the adapter into its base model first" if adapter else "name the folder that holds config.json",
        )
    elif contract and not (folder / FILE_NAME).exists():
        raise CheckpointError(
            f"{name} has no contract, so nothing says that its scores are right",
            hint="`rewardlab import` gives a model of others one",
        )


def short_name(path: str | Path) -> str:
    """What a model is called where nobody has said: its folder, the policy's, or that it is an ensemble.

    Raises:
        ConfigError: The path names models, and one of them is missing.
    """
    if members_of(path) is not None:
        return "ensemble"
    models = policy_and_reference(path)
    one = Path(models[0] if models else path)
    return (one.resolve() if one.exists() else one).name or "reward-model"
