"""What the name of a scorer says: one model, the members of an ensemble, or a policy with its reference.

members_of("runs/rm-1,runs/rm-2")              # ["runs/rm-1", "runs/rm-2"]
policy_and_reference("runs/dpo:models/sft")    # ("runs/dpo", "models/sft")
short_name("runs/dpo:models/sft")              # "dpo"

This file knows names and which folders exist; it loads nothing and needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from rewardlab.errors import ConfigError


def members_of(path: str | Path) -> list[str] | None:
    """The members that ``A,B,C`` names; None where it is one path. A folder that exists is one whatever its name.

    Raises:
        ConfigError: There is nothing before, after or between two commas.
    """
    text = str(path)
    if "," not in text or Path(text).exists():
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
    if not colon or ":" in reference or Path(text).exists() or reference.startswith(("//", "\\")):
        return None
    if not policy:
        raise ConfigError(f"{text}: there is no policy before the colon", hint="name both: POLICY:REFERENCE")
    return policy, reference or None


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
