"""Fill any dataclass from a YAML recipe, ``key=value`` overrides and command-line options, checked against its types.

Precedence: the dataclass's defaults < the recipe < the overrides (``--set``) < the options given by name. Every error
names the file and line or the option, the key, what came and what was expected; an unknown key names the nearest one.

Scalars are read by YAML 1.2's core rules: ``1e-5`` is a number (PyYAML follows YAML 1.1, where it is text, and a
learning rate arrives as a string), and ``yes``, ``on`` and ``2026-01-31`` are text.

This file knows dataclasses and YAML; it does not know which dataclasses exist, the command line, torch or transformers.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from rewardlab.documents import read_text
from rewardlab.errors import ConfigError

T = TypeVar("T")

_TAG = "tag:yaml.org,2002:"
_MOST_BYTES = 1 << 20
_MOST_NODES = 10_000  # PyYAML composes some thousands in a second
_MOST_DEPTH = 50
_UNUSABLE = re.compile("[\0\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$")


class _Yaml(yaml.SafeLoader):
    """YAML with the core scalars of version 1.2, bounded, and an error for a key that comes twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._nodes = 0
        self._sizes: dict[int, int] = {}  # of whole nodes, those that aliases repeat counted each time

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = cast(Any, self).peek_event()
        if isinstance(event, yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                _refuse(f"the alias *{event.anchor} stands inside what it repeats", event)
            self._nodes += self._sizes[id(node)]
        else:
            if getattr(event, "tag", None) is not None:
                _refuse(f"the tag {event.tag!r} is not read: expected plain values", event)
            before = self._nodes
            self._depth, self._nodes = self._depth + 1, self._nodes + 1
            if self._depth > _MOST_DEPTH:
                _refuse(f"it is nested deeper than {_MOST_DEPTH}", event)
            node = super().compose_node(parent, index)
            self._depth -= 1
            self._sizes[id(node)] = self._nodes - before
            if isinstance(node, yaml.ScalarNode) and _UNUSABLE.search(node.value):
                _refuse("a text holds NUL or half of a UTF-16 pair, which no file and no tokenizer takes", event)
        if self._nodes > _MOST_NODES:
            _refuse(f"it holds more than {_MOST_NODES:,} values, what aliases repeat counted each time", event)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = cast(Any, super()).compose_mapping_node(anchor)
        seen: set[str] = set()  # before merged keys are written into it
        for key in [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != f"{_TAG}merge"]:
            if key.value in seen:
                problem = f"the key {key.value!r} comes twice"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _refuse(problem: str, event: yaml.Event) -> NoReturn:
    raise yaml.composer.ComposerError(problem=problem, problem_mark=cast(Any, event.start_mark))


for _tag, _pattern, _first in (
    ("null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$"), list("-+0123456789")),
    ("float", _NUMBER, list("-+.0123456789")),
    ("float", re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"), list("-+.")),
    ("merge", re.compile(r"<<$"), ["<"]),
):
    _Yaml.add_implicit_resolver(_TAG + _tag, _pattern, _first)


@dataclass(frozen=True)
class _Given:
    """One value as it was given: its key as a path of names, the value, its raw text (overrides only), and where."""

    path: tuple[str, ...]
    value: Any
    where: str
    text: str | None = None


def build(
    cls: type[T],
    *,
    recipe: Path | None = None,
    overrides: Sequence[str] = (),
    explicit: Mapping[str, Any] | None = None,
) -> T:
    """An instance of a dataclass from its defaults, a recipe, overrides and explicit options, in rising precedence.

    Nested dataclasses are mappings in the recipe and dotted keys in overrides and options (``optimizer.beta``). Types
    are checked strictly: an integer serves where a number is asked, nothing else is converted silently; in an override,
    where a shell has eaten the quotes, a text field takes what was written. Values for types that are neither plain
    nor dataclasses (``ParallelismConfig | dict``) are passed through.

    Args:
        cls: A dataclass; inherited fields count (``transformers.TrainingArguments`` works).
        recipe: A YAML file with one mapping.
        overrides: ``key=value`` texts, the value in YAML; a later one wins.
        explicit: Values by field name; None means that the option was not given.

    Returns:
        The instance.

    Raises:
        ConfigError: the recipe cannot be read, a key is unknown, a value has the wrong type, a required field has no
            value, or the dataclass itself refuses its values with a ValueError.
    """
    given: dict[tuple[str, ...], Any] = {}
    if recipe is not None:
        values, lines = _read_recipe(recipe)
        for item in _flatten(cls, (), values, recipe, lines):
            _assign(cls, given, item)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {override}: expected key=value", hint="for example --set learning_rate=1e-5")
        value = _parse_override(text)
        _assign(cls, given, _Given(tuple(key.strip().split(".")), value, f"--set {override}", text))
    for name, value in (explicit or {}).items():
        if value is not None:
            where = "--" + name.replace("_", "-")
            _assign(cls, given, _Given(tuple(name.split(".")), value, where))
    return cast(T, _construct(cls, given))


def from_record(cls: type[T], record: object, where: str = "") -> T:
    """An instance of a dataclass from JSON values, checked against its types all the way down.

    Args:
        cls: A dataclass; its fields may be dataclasses too, optional ones, and lists of them.
        record: The values; a field with a default may be missing.
        where: What stands before a key in errors, such as ``"probes[3]."``.

    Returns:
        The instance.

    Raises:
        ValueError: A key is unknown or missing, a value has the wrong type, or the dataclass refuses its values. Says
            which.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"{where.rstrip('.') or cls.__name__} must be a mapping, got {_describe(record)}")
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    if unknown := [key for key in record if key not in fields]:
        raise ValueError(f"unknown key {where}{str(unknown[0])[:60]}")
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in record:
            values[name] = _of_record(record[name], hints[name], where + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"there is no key {where}{name}")
    return cls(**values)


def _of_record(value: Any, hint: Any, where: str) -> Any:
    if value is not None and (nested := _dataclass_in(hint)) is not None:
        return from_record(nested, value, f"{where}.")
    args = get_args(hint)
    if get_origin(hint) is list and isinstance(value, list) and _dataclass_in(args[0]) is not None:
        return [_of_record(item, args[0], f"{where}[{index}]") for index, item in enumerate(value)]
    try:
        return _convert(value, hint)
    except _MismatchError:
        raise ValueError(f"{where} must be {_expected(hint)}, got {_describe(value)}") from None


def _read_recipe(path: Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The recipe's mapping, and the line on which each key (as a path) stands."""
    text = read_text(path, ConfigError, hint="name a YAML file", most_bytes=_MOST_BYTES)
    lines: dict[tuple[str, ...], int] = {}
    try:
        node, values = _load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not a YAML recipe: {getattr(error, 'problem', None) or error}") from error
    values = {} if node is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {_describe(values)}")
    _note_lines(node, (), lines)
    return values, lines


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    """The one document of a text: as nodes, which know their lines, and as plain values (the loader is a SafeLoader).

    Raises:
        yaml.YAMLError: It is none.
    """
    try:
        loader = _Yaml(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except (ValueError, OverflowError) as error:  # an escape that is no character, an integer of thousands of digits
        raise yaml.YAMLError(str(error)) from error


def _note_lines(node: yaml.Node | None, path: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            lines[(*path, key.value)] = key.start_mark.line + 1
            _note_lines(value, (*path, key.value), lines)


def _flatten(
    cls: type, path: tuple[str, ...], values: Mapping[Any, Any], file: Path, lines: Mapping[tuple[str, ...], int]
) -> Iterator[_Given]:
    """The recipe's values as single assignments; mappings that stand for nested dataclasses are entered."""
    hints = get_type_hints(cls)
    for key, value in values.items():
        here = (*path, str(key))
        nested = _dataclass_in(hints.get(str(key)))
        if nested is not None and isinstance(value, Mapping):
            yield from _flatten(nested, here, value, file, lines)
        else:
            line = lines.get(here)
            yield _Given(here, value, f"{file}:{line}" if line else str(file))


def _parse_override(text: str) -> Any:
    """The value of an override; text that is not YAML stays text, for a text field to take."""
    try:
        return _load(text)[1]
    except yaml.YAMLError:
        return text


def _assign(cls: type, given: dict[tuple[str, ...], Any], item: _Given) -> None:
    """Check one value against the field its path names, and store it over what lower precedence gave."""
    hint = _hint_of(cls, item)
    if _dataclass_in(hint) is not None and isinstance(item.value, Mapping):
        for name, value in item.value.items():
            _assign(cls, given, _Given((*item.path, str(name)), value, item.where))
        return
    for candidate in [item.value] if item.text is None else [item.value, item.text]:
        try:
            value = _convert(candidate, hint)
            break
        except _MismatchError:
            continue
    else:
        raise ConfigError(
            f"{item.where}: {'.'.join(item.path)} must be {_expected(hint)}, got {_describe(item.value)}",
            hint=_advice(item.value, hint),
        )
    for path in list(given):  # what was given below, and a null given above, no longer count
        if path[: len(item.path)] == item.path or item.path[: len(path)] == path:
            del given[path]
    given[item.path] = value


def _hint_of(cls: type, item: _Given) -> Any:
    """The type of the field that a path names, through nested dataclasses."""
    owner: type | None = cls
    hint: Any = None
    for depth, name in enumerate(item.path):
        if owner is None:
            above = ".".join(item.path[:depth])
            raise ConfigError(f"{item.where}: {above} has no keys of its own", hint=f"give {above} one whole value")
        names = [field.name for field in dataclasses.fields(owner) if field.init]
        if name not in names:
            nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            advice = f"did you mean {nearest[0]!r}?" if nearest else f"the keys are the fields of {owner.__name__}"
            raise ConfigError(f"{item.where}: unknown key {'.'.join(item.path)!r}", hint=advice)
        hint = get_type_hints(owner)[name]
        owner = _dataclass_in(hint)
    return hint


def _construct(cls: type, given: Mapping[tuple[str, ...], Any], path: tuple[str, ...] = (), default: Any = None) -> Any:
    """The instance at a path: the default instance, where there is one, with the given fields replaced."""
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    missing = []
    for field in dataclasses.fields(cls):
        here = (*path, field.name)
        if default is not None:
            usual = getattr(default, field.name)
        else:
            usual = field.default_factory() if callable(field.default_factory) else field.default
        if here in given:
            values[field.name] = given[here]
        elif any(other[: len(here)] == here for other in given):
            nested = cast(type, _dataclass_in(hints[field.name]))
            values[field.name] = _construct(nested, given, here, usual if isinstance(usual, nested) else None)
        elif usual is dataclasses.MISSING and field.init:
            missing.append(".".join(here))
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be given", hint=f"for example --set {missing[0]}=...")
    try:
        return cls(**values) if default is None else dataclasses.replace(default, **values)
    except ValueError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


class _MismatchError(Exception):
    """The value is not of the type asked."""


def _convert(value: Any, hint: Any) -> Any:
    """The value as the type asks, or _MismatchError; types that are neither plain nor dataclasses pass it through."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, args)
    if origin is Literal:
        return _accept(value, any(type(value) is type(choice) and value == choice for choice in args))
    if origin is types.NoneType:
        return _accept(value, value is None)
    if origin is bool:
        return _accept(value, isinstance(value, bool))
    if origin is int:
        return _accept(value, isinstance(value, int) and not isinstance(value, bool))
    if origin is float:
        return _convert_float(value)
    if origin is str:
        return _accept(value, isinstance(value, str))
    if origin is Path:
        return Path(_accept(value, isinstance(value, str | Path)))
    if origin in (list, tuple, Sequence):
        return _convert_list(value, origin, args)
    if origin in (dict, Mapping):
        key, item = args or (Any, Any)
        return {_convert(k, key): _convert(v, item) for k, v in _accept(value, isinstance(value, Mapping)).items()}
    if isinstance(origin, type) and issubclass(origin, enum.Enum):
        try:
            return origin(value)
        except ValueError:
            raise _MismatchError from None
    if dataclasses.is_dataclass(origin):
        return _accept(value, isinstance(value, cast(type, origin)))
    return value


def _accept(value: Any, fits: bool) -> Any:
    if not fits:
        raise _MismatchError
    return value


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    """The value as it is where a member is exactly its type, else as the first member that takes it."""
    if type(value) in members:
        return value
    for member in members:
        try:
            return _convert(value, member)
        except _MismatchError:
            continue
    raise _MismatchError


def _convert_float(value: Any) -> float:
    """A number; text that spells one serves too (``"1e-5"`` in quotes can mean nothing else)."""
    spelled = isinstance(value, str) and _NUMBER.match(value) is not None
    _accept(value, spelled or (isinstance(value, int | float) and not isinstance(value, bool)))
    try:
        return float(value)
    except OverflowError:
        raise _MismatchError from None


def _convert_list(value: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    items = _accept(value, isinstance(value, list | tuple))
    if origin is tuple and args and args[-1] is not Ellipsis:
        _accept(value, len(items) == len(args))
        return tuple(_convert(item, arg) for item, arg in zip(items, args, strict=True))
    of = args[0] if args else Any
    return (tuple if origin is tuple else list)(_convert(item, of) for item in items)


def _dataclass_in(hint: Any) -> type | None:
    """The dataclass that a mapping would fill: the hint itself, or the only one beside None in a union."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    members = tuple(member for member in members if member is not types.NoneType)
    only = members[0] if len(members) == 1 else None
    return only if isinstance(only, type) and dataclasses.is_dataclass(only) else None


_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    types.NoneType: "null",
}


def _expected(hint: Any) -> str:
    """The type in words, for an error."""
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_expected(arg) for arg in args)
    if choices := _choices(hint):
        return "one of " + ", ".join(str(choice) for choice in choices)
    if origin in (list, tuple, Sequence):
        of = [_expected(arg) for arg in args if arg not in (Ellipsis, Any)]
        return f"a list of ({', '.join(of)})" if of else "a list"
    if origin in (dict, Mapping) or _dataclass_in(hint) is not None:
        return "a mapping"
    return _WORDS.get(origin) or str(getattr(origin, "__name__", origin))


def _choices(hint: Any) -> list[Any]:
    """The values that a Literal or an Enum allows; those of a union's members together."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return [member.value for member in hint]
    return []


def _advice(value: Any, hint: Any) -> str:
    """How to mend a value of the wrong type, where that can be guessed."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    choices = [str(choice) for member in members for choice in _choices(member)]
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    if str in members:
        return "put it in quotes to make it text"
    if int in members and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if any((get_origin(member) or member) in (list, tuple, Sequence) for member in members):
        return "write a list as [a, b]"
    return ""


def _describe(value: Any) -> str:
    """A value as an error shows it: what it is, and its beginning."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
