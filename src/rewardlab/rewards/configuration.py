"""From a configuration (preset, YAML file or list) to transforms, and back; errors name place and nearest name.

This file knows how configurations are written; what an option means is each transform's.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from rewardlab.config import build
from rewardlab.errors import ConfigError
from rewardlab.rewards.entries import Known, Transform
from rewardlab.rewards.presets import PRESETS
from rewardlab.rewards.transforms import TRANSFORMS

Configuration = str | Path | Sequence[str | Mapping[str, Any]]


@dataclass
class _File:
    """What a YAML file of a chain says."""

    transforms: list[Any]


def transforms_from(spec: Configuration, known: Known) -> list[Transform]:
    """The transforms that a configuration names.

    Args:
        spec: The name of a preset; the path of a YAML file with the key ``transforms``; or a list of names and
            ``{name: options}``.
        known: What the model's contract says, for options that are taken from there.

    Raises:
        ConfigError: An unknown preset, transform or option (the nearest is named), a value that does not fit, or
            something the contract does not have.
    """
    items, where = _items(spec)
    return [_transform(item, f"{where}[{number}]", known) for number, item in enumerate(items)]


def configuration_of(transforms: Sequence[Transform]) -> list[str | dict[str, dict[str, Any]]]:
    """The list from which :func:`transforms_from` makes the same transforms; defaults are left out."""
    config: list[str | dict[str, dict[str, Any]]] = []
    for transform in transforms:
        fields = dataclasses.fields(transform)  # type: ignore[arg-type]
        defaults = {field.name: field.default for field in fields}
        told = {name: value for name, value in transform.options().items() if value != defaults[name]}
        config.append({transform.name: told} if told else transform.name)
    return config


def _items(spec: Configuration) -> tuple[Sequence[Any], str]:
    if isinstance(spec, Path) or (isinstance(spec, str) and spec.endswith((".yaml", ".yml"))):
        return build(_File, recipe=Path(spec)).transforms, f"{spec}: transforms"
    if isinstance(spec, str):
        if spec not in PRESETS:
            advice = _nearest(spec, list(PRESETS), "the presets are")
            raise ConfigError(f"there is no preset {spec!r}", hint=f"{advice}; a file ends in .yaml")
        return PRESETS[spec], f"preset {spec}: transforms"
    if not isinstance(spec, Sequence):
        raise ConfigError(
            f"a chain is a list of transforms, a preset's name or a YAML file, got a {type(spec).__name__}",
            hint="for example ['delta', {'clip': {'limit': 10}}, 'running']",
        )
    return spec, "transforms"


def _transform(item: Any, where: str, known: Known) -> Transform:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise ConfigError(
            f"{where}: expected a name, or one name with its options, got {item!r}",
            hint="for example - clip: {limit: 10}",
        )
    ((name, options),) = item.items()
    if name not in TRANSFORMS:
        hint = _nearest(str(name), list(TRANSFORMS), "the transforms are")
        raise ConfigError(f"{where}: there is no transform {name!r}", hint=hint)
    kind = TRANSFORMS[name]
    options = {} if options is None else options
    if not isinstance(options, Mapping):
        raise ConfigError(f"{where}: {name}'s options must be a mapping, got {options!r}", hint=_example(kind))
    checked = {str(option): _checked(kind, str(option), value, where) for option, value in options.items()}
    told = {option: value for option, value in checked.items() if value is not None}  # null: as if it were not there
    try:
        complete = kind.resolved(told, known)
        _require_all(kind, complete)
        return kind(**complete)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from error


def _fields(kind: type[Transform]) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(kind) if field.init]  # type: ignore[arg-type]


def _example(kind: type[Transform]) -> str:
    names = [field.name for field in _fields(kind)]
    return f"write {kind.name}: {{{names[0]}: ...}}; its options are {', '.join(names)}"


def _require_all(kind: type[Transform], options: Mapping[str, Any]) -> None:
    for field in _fields(kind):
        if field.default is dataclasses.MISSING and field.name not in options:
            raise ConfigError(
                f"{kind.name}: {field.name} must be given", hint=f"write {kind.name}: {{{field.name}: 1.0}}"
            )


def _checked(kind: type[Transform], option: str, value: Any, where: str) -> Any:
    """The value as the option's type asks; ranges are the transform's own to check."""
    names = [field.name for field in _fields(kind)]
    if option not in names:
        hint = _nearest(option, names, "its options are")
        raise ConfigError(f"{where}: {kind.name} has no option {option!r}", hint=hint)
    hint = get_type_hints(kind)[option]
    choices = [str(choice) for choice in get_args(hint)] if get_origin(hint) is Literal else []
    if choices:
        if value not in choices:
            advice = _nearest(str(value), choices, "it can be")
            raise ConfigError(f"{where}: {kind.name}: {option} cannot be {value!r}", hint=advice)
        return value
    if hint is bool:
        fits, expected = isinstance(value, bool), "true or false"
    else:
        optional = type(None) in get_args(hint)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits, expected = number or (optional and value is None), "a number"
    if not fits:
        raise ConfigError(f"{where}: {kind.name}: {option} must be {expected}, got {value!r}")
    try:
        return float(value) if type(value) is int else value
    except OverflowError as error:
        raise ConfigError(f"{where}: {kind.name}: {option} is larger than any float") from error


def _nearest(given: str, names: list[str], otherwise: str) -> str:
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"{otherwise} {', '.join(names)}"
