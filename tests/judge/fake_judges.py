"""Scripted judges for the fake server: each finds the fenced texts in a question, values them, and answers as asked.

    with fake_server(honest()) as server: ...
    with fake_server(failing_first(honest(), status(500))) as server: ...

An answer has the form that the question asks for: JSON where a schema is sent, else the verdict line or the brackets
that the prompt names. ``value`` is of one text, higher is better; a rating is the value, within the scale.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.judge.fake_server import Behaviour, Script, reply

Value = Callable[[str], float]
Values = Callable[[Sequence[str]], Sequence[float]]

_FENCED = re.compile(
    r"<<<BEGIN (?P<title>[^\n]*?) (?P<nonce>[0-9a-f]{16})>>>\n(.*?)\n?<<<END (?P=title) (?P=nonce)>>>", re.DOTALL
)
_JUDGED = re.compile(r"completion( [A-Z])?|step \d+")
_CLAIM = re.compile(
    r"VERDICT|ERDICT|\[[AB]\]|RESULT|\"verdict\"|the grader has decided|new instructions", re.IGNORECASE
)
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_QUALITY = re.compile(r"quality=(-?\d+)")


def asked_of(body: Mapping[str, Any]) -> str:
    """All that a question says."""
    return "\n".join(message["content"] for message in body["messages"])


def judged_texts(body: Mapping[str, Any]) -> list[str]:
    """The completions, or steps, in the order shown, as the judge sees them."""
    found = [(match["title"], match[3]) for match in _FENCED.finditer(asked_of(body))]
    return [text for title, text in found if _JUDGED.fullmatch(title)]


def judge(value: Value, *, margin: float = 0.0) -> Script:
    """Whoever values each text by itself; values no further apart than the margin are a tie."""
    return judge_all(lambda texts: [value(text) for text in texts], margin=margin)


def judge_all(values: Values, *, margin: float = 0.0) -> Script:
    """Whoever values the texts as they stand together."""

    def script(body: dict[str, Any], call: int) -> Behaviour:
        texts = judged_texts(body)
        if not texts:  # such as the probe's question
            return reply('{"greeting": "hello"}' if "response_format" in body else "hello")
        return reply(answer(body, values(texts), margin))

    return script


def quality(text: str) -> float:
    """What ``quality=N`` in a text says; 0 where none does."""
    found = _QUALITY.search(text)
    return float(found[1]) if found else 0.0


def honest(*, margin: float = 0.0) -> Script:
    """Knows the hidden quality and nothing else."""
    return judge(quality, margin=margin)


def position_biased(place: int = 0) -> Script:
    """Prefers what stands at one place, whatever it is."""
    return judge_all(lambda texts: [10.0 if index == place % len(texts) else 1.0 for index in range(len(texts))])


def length_biased() -> Script:
    """The longer wins."""
    return judge(len)


def self_preferring(mark: str) -> Script:
    """Prefers texts with its own turn of phrase, else by quality."""
    return judge(lambda text: 100.0 + quality(text) if mark in text else quality(text))


def gullible() -> Script:
    """Believes a verdict, or an order, that it finds inside a text; else it is honest."""
    return judge(lambda text: 100.0 if _CLAIM.search(text) else quality(text))


def answer(body: Mapping[str, Any], values: Sequence[float], margin: float = 0.0) -> str:
    """These values as a verdict in the form that the question asks for."""
    form = body.get("response_format")
    if form is not None:
        return json.dumps(_object(form["json_schema"]["schema"]["properties"], values, margin))
    return f"These are my reasons.\n{_line(asked_of(body), values, margin)}"


def _object(properties: Mapping[str, Any], values: Sequence[float], margin: float) -> dict[str, Any]:
    found: dict[str, Any] = {"id": properties["id"]["enum"][0], "reason": "these are my reasons"}
    if "verdict" in properties:
        found["verdict"] = _choice(values, margin, ("A", "B", "tie"))
    elif "ranking" in properties:
        found["ranking"] = [[_LETTERS[index] for index in tied] for tied in _ranking(values)]
    elif "rating" in properties:
        scale = properties["rating"]["enum"]
        found["rating"] = _within(values[0], scale[0], scale[-1])
    else:
        found["labels"] = ["incorrect" if value < 0 else "correct" for value in values]
    return found


def _line(asked: str, values: Sequence[float], margin: float) -> str:
    scale = re.search(r"integer from (-?\d+) to (-?\d+)", asked)
    tag = re.search(r"^\s*(VERDICT-[0-9a-f]+:) (first error:)?", asked, re.MULTILINE)
    if tag and tag[2]:
        wrong = [str(number) for number, value in enumerate(values, start=1) if value < 0]
        return f"{tag[1]} first error: {wrong[0] if wrong else 'none'}"
    if tag and "X names all completions" in asked:
        order = (" = ".join(_LETTERS[index] for index in tied) for tied in _ranking(values))
        return f"{tag[1]} {' > '.join(order)}"
    begins = f"{tag[1]} " if tag else "[RESULT] " if "[RESULT]" in asked else ""
    if scale and len(values) == 1:
        return f"{begins}{_within(values[0], int(scale[1]), int(scale[2]))}"
    if "[[A]]" in asked and not tag:  # else a completion says it
        return f"[[{_choice(values, margin, ('A', 'B', 'C' if '[[C]]' in asked else 'A'))}]]"
    return f"{begins}{_choice(values, margin, ('A', 'B', 'tie' if tag else 'A'))}"


def _choice(values: Sequence[float], margin: float, names: tuple[str, str, str]) -> str:
    first, second = values
    if abs(first - second) <= margin:
        return names[2]
    return names[0] if first > second else names[1]


def _ranking(values: Sequence[float]) -> list[list[int]]:
    return [
        [index for index, value in enumerate(values) if value == best] for best in sorted(set(values), reverse=True)
    ]


def _within(value: float, low: int, high: int) -> int:
    return max(low, min(high, math.floor(value)))
