r"""Verifiable rewards: an answer that is right or wrong, a format that is kept or not.

Each function here makes a check, which is called as TRL calls a reward function, ``check(prompts=...,
completions=..., **columns)``, and gives one number per completion: 1 where it holds, 0 where it does not, None where
the row says nothing to check against. Prompts and completions may be text or messages.

    check = exact_match(how="number", column="answer")
    check(prompts=["2 + 2?"], completions=["It is 4."], answer=["4"])        # [1.0]

This file reads text; it knows no model. What runs code is :mod:`rewardlab.rewards.unit_tests`.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from rewardlab.errors import ConfigError, DataError
from rewardlab.types import as_text, text_of

Check: TypeAlias = Callable[..., list[float | None]]
"""``check(prompts, completions, **columns)``."""

How: TypeAlias = Literal["text", "number", "boxed", "choice", "literal"]
"""Where the answer is in a completion, and when two answers are equal; :func:`exact_match` says what each is."""

_SIGN = r"(?:(?<![\w)\]])[-+])?[$€£]?"  # in "17-7" the dash is no sign
_NUMBER = re.compile(_SIGN + r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?(?:/\d+)?")
_CHOICES = (
    re.compile(r"(?i:answer|choice|option)\W{0,4}(?i:is\b)?\W{0,4}([A-J])\b"),
    re.compile(r"^\W*([A-J])\W*$", re.MULTILINE),
    re.compile(r"\A\W*([A-J])[).:]\s"),
    re.compile(r"\(([A-J])\)"),
)
_FENCE = re.compile(r"```(?:json)?[ \t]*\n(.*?)```", re.DOTALL)


def exact_match(how: How = "text", *, column: str = "answer", extract: str | None = None) -> Check:
    r"""A check that the completion's answer is the row's.

    =========== ============================================ ===================================================
    how         the answer in the completion                 equal where
    =========== ============================================ ===================================================
    ``text``    the whole text                               same letters and digits: case, accents' coding, white
                                                             space and punctuation at the ends do not count
    ``number``  its last number (``1,234.50``, ``-3``,       same value, exactly: ``0.5`` is ``1/2``
                ``$5``, ``3/4``, ``2e3``)
    ``boxed``   what is in its last ``\boxed{...}``          same value where both are one number, else same text
                                                             without spaces and LaTeX that only sets type
    ``choice``  the letter, A to J, after its last "answer", same letter
                "option" or "choice"; else alone on a line,
                at the start (``B) ...``), or in brackets
    ``literal`` the whole text, a Python literal             equal in Python: ``[1,2]`` is ``[1, 2]``
    =========== ============================================ ===================================================

    No answer found is a wrong answer. It is a comparison of texts, not mathematics: ``x+1`` and ``1+x`` differ.

    Args:
        how: How answers are found and compared.
        column: The column with the row's answer; of ``number`` and ``choice`` it may be a whole solution ("#### 72"),
            of ``boxed`` with or without the box. None in it: no verdict.
        extract: A regular expression with one group, e.g. ``r"<answer>(.*?)</answer>"`` (``.`` matches line ends too):
            only what the group caught at its last match is looked at; no match is a wrong answer.

    Raises:
        ConfigError: No such ``how``, or an expression that cannot be used; when called, a column that is not there.
        DataError: When called, a row's answer that is none (no number in it).

    Example:
        >>> exact_match("number")(prompts=["?"] * 2, completions=["so 1,200 in all.", "24"], answer=["1200", "#### 25"])
        [1.0, 0.0]
    """
    if how not in _READERS:
        raise ConfigError(f"there is no way {how!r} to compare answers", hint=f"the ways are {', '.join(_READERS)}")
    find, equal = _READERS[how]
    pattern = None if extract is None else _compiled(extract, groups=1)

    def check(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        verdicts: list[float | None] = []
        answers = column_of(column, columns, len(completions))
        for number, (completion, wanted) in enumerate(zip(completions, answers, strict=True)):
            if wanted is None:
                verdicts.append(None)
                continue
            right = find(str(wanted), True)
            if right is None:
                raise DataError(
                    f"row {number}: no answer of the kind {how!r} in its column {column!r}: {str(wanted)[:80]!r}",
                    hint="give None where a row has no answer to compare with",
                )
            text: str | None = completion_text(completion)
            if pattern is not None and text is not None:
                caught = pattern.findall(text)
                text = caught[-1] if caught else None
            given = None if text is None else find(text, False)
            verdicts.append(float(given is not None and equal(given, right)))
        return verdicts

    return _named(check, f"exact_match_{how}")


def matches_format(pattern: str) -> Check:
    """A check that the whole completion matches a regular expression (``.`` matches line ends too).

    Args:
        pattern: As of :mod:`re`; white space around the completion is not looked at. Nested repetitions take forever on
            long texts that almost match.
    """
    compiled = _compiled(pattern)
    return _per_text(lambda text: compiled.fullmatch(text.strip()) is not None, "matches_format")


def has_tags(*names: str) -> Check:
    """A check that the completion is made of these tags, each once and in this order, and of nothing else.

    ``has_tags("think", "answer")`` holds for ``<think>...</think> <answer>...</answer>``, with anything but these tags
    between, and only white space outside.

    Args:
        names: Tags, without their brackets.
    """
    if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[\w-]+", name) for name in names):
        raise ConfigError(f"has_tags needs different names of letters, digits, _ and -, got {list(names)}")
    marks = [mark for name in names for mark in (f"<{name}>", f"</{name}>")]
    split = re.compile("|".join(re.escape(mark) for mark in marks))

    def holds(text: str) -> bool:
        if split.findall(text) != marks:
            return False
        return not any(outside.strip() for outside in split.split(text)[::2])

    return _per_text(holds, "has_tags")


def length_between(
    minimum: int = 0, maximum: int | None = None, *, unit: Literal["characters", "words", "tokens"] = "characters"
) -> Check:
    """A check that a completion is neither too short nor too long, both ends included.

    Args:
        minimum: Fewest.
        maximum: Most; None: no limit.
        unit: What is counted. Tokens are the policy's, counted in the column ``completion_ids`` that TRL passes.
    """
    if unit not in ("characters", "words", "tokens"):
        raise ConfigError(f"unit must be 'characters', 'words' or 'tokens', got {unit!r}")
    if minimum < 0 or (maximum is not None and maximum < minimum):
        raise ConfigError(f"need 0 <= minimum <= maximum, got {minimum} and {maximum}")

    def check(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        if unit == "tokens":
            lengths = [len(ids) for ids in column_of("completion_ids", columns, len(completions))]
        else:
            texts = [completion_text(completion) for completion in completions]
            lengths = [len(text) if unit == "characters" else len(text.split()) for text in texts]
        return [float(length >= minimum and (maximum is None or length <= maximum)) for length in lengths]

    return _named(check, "length_between")


def valid_json(*, required_keys: Sequence[str] = ()) -> Check:
    """A check that the completion is JSON, bare or in one fenced block.

    Strict JSON: NaN and Infinity, which Python would accept, are none.

    Args:
        required_keys: It must be an object, and have these.
    """

    def holds(text: str) -> bool:
        fenced = _FENCE.findall(text)
        try:
            value = json.loads(fenced[0] if len(fenced) == 1 else text, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return False
        return not required_keys or (isinstance(value, dict) and set(required_keys) <= set(value))

    return _per_text(holds, "valid_json")


def completion_text(completion: Any) -> str:
    """The characters of a completion, text or messages.

    Args:
        completion: A string, or a list of messages.
    """
    return text_of(as_text(completion))


def column_of(name: str, columns: Mapping[str, Any], count: int) -> Sequence[Any]:
    """A column of the rows that the completions belong to.

    Args:
        name: Its name.
        columns: All that the trainer passed.
        count: How many completions there are.

    Raises:
        ConfigError: There is no such column, or it has another number of entries.
    """
    found = columns.get(name)
    if not isinstance(found, list | tuple) or len(found) != count:
        came = "is missing" if name not in columns else f"is no list of {count} entries"
        raise ConfigError(
            f"the check needs the column {name!r}, one entry per completion, and it {came}",
            hint=f"the columns are {', '.join(sorted(columns)) or 'none'}; name another with column=",
        )
    return found


def _per_text(holds: Callable[[str], bool], name: str) -> Check:
    def check(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [float(holds(completion_text(completion))) for completion in completions]

    return _named(check, name)


def _named(check: Check, name: str) -> Check:
    check.__name__ = name  # what TRL logs it as
    return check


def _compiled(pattern: str, groups: int | None = None) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression: {error}") from error
    if groups is not None and compiled.groups != groups:
        raise ConfigError(f"{pattern!r} has {compiled.groups} groups, expected {groups}", hint="(?:...) groups nothing")
    return compiled


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"^\W+|\W+$", "", " ".join(folded.split())) or " ".join(folded.split())


def _value(written: str) -> Fraction | None:
    """The value of one number as people write it; None where it is none."""
    text = unicodedata.normalize("NFKC", written).replace("−", "-")
    text = re.sub(r"[$€£,\s%\\]", "", text).rstrip(".")
    if len(text) > 200 or re.search(r"[eE][-+]?\d{4}", text):  # 1e999999999 would be computed
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


def _last_number(text: str, is_wanted: bool) -> Fraction | None:
    values = [_value(found) for found in _NUMBER.findall(text.replace("−", "-"))]
    known = [value for value in values if value is not None]
    return known[-1] if known else None


def _boxed(text: str, is_wanted: bool) -> str | None:
    r"""What stands in the last ``\boxed{...}``, braces balanced; of the wanted answer without a box, all of it."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return text if is_wanted else None
    depth = 0
    for place in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : place]
    return None


def _same_boxed(given: str, wanted: str) -> bool:
    one, other = _value(given), _value(wanted)
    return one == other if one is not None and other is not None else _set_plain(given) == _set_plain(wanted)


def _set_plain(text: str) -> str:
    text = re.sub(r"\\(?:left|right|,|;|!|:| )", "", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    text = re.sub(r"\\(?:text|mathrm|textbf)\{([^{}]*)\}", r"\1", text)
    return re.sub(r"[\s$]", "", text).rstrip(".")


def _choice(text: str, is_wanted: bool) -> str | None:
    for pattern in _CHOICES:
        found = pattern.findall(text.upper() if is_wanted else text)
        if found:
            return str(found[-1])
    return None


def _literal(text: str, is_wanted: bool) -> tuple[Any] | None:
    """The value in a tuple of its own, since None is a value too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\\d" in a string that nobody will run
            return (ast.literal_eval(text.strip()),)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


_READERS: dict[str, tuple[Callable[[str, bool], Any], Callable[[Any, Any], bool]]] = {
    "text": (lambda text, is_wanted: _plain(text), lambda one, other: one == other),
    "number": (_last_number, lambda one, other: one == other),
    "boxed": (_boxed, _same_boxed),
    "choice": (_choice, lambda one, other: one == other),
    "literal": (_literal, lambda one, other: one == other),
}
