"""In which form a verdict is asked for: the words that ask for it, and the JSON schema where the server keeps to one.

:mod:`~rewardlab.judge.parsing` reads what is answered. The last three formats are those of published judge outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rewardlab.judge.verdicts import Mode

VerdictFormat: TypeAlias = Literal[
    "json", "tagged", "double_bracket", "result", "number", "llmbar", "two_scores", "mr_gsm8k"
]
"""``json``: an object: nonce, reason, verdict; ``tagged``: a last line ``VERDICT-<nonce>: ...``; ``double_bracket``:
``[[A]]``; ``result``: ``[RESULT] ...``; ``number``: a last line that is a number; ``llmbar``: ``Output (a) is better``;
``two_scores``: a first line of two numbers; ``mr_gsm8k``: ``Final Judgement`` and ``First Error Step``."""

MODES: dict[VerdictFormat, tuple[Mode, ...]] = {
    "json": ("pairwise", "listwise", "rating", "steps"),
    "tagged": ("pairwise", "listwise", "rating", "steps"),
    "double_bracket": ("pairwise",),
    "result": ("pairwise", "rating"),
    "number": ("rating",),
    "llmbar": ("pairwise",),
    "two_scores": ("pairwise",),
    "mr_gsm8k": ("steps",),
}
"""Format to the modes whose verdicts it can carry."""

WITHOUT_TIES: tuple[VerdictFormat, ...] = ("result", "llmbar")
"""Formats in which two completions cannot be called equal."""

LETTERS = "ABCDEFGH"
"""What completions are called, in the order shown; of more than eight, attention to each is known to fade."""

STEP_LABELS: dict[str, int] = {"correct": 1, "neutral": 0, "incorrect": -1}


@dataclass(frozen=True, slots=True)
class VerdictSpec:
    """What verdict is due.

    Attributes:
        mode: What is judged.
        format: The form.
        nonce: The question's.
        count: Completions, or in the mode ``steps`` steps.
        scale: Lowest and highest rating.
        ties: Whether completions may be called equal.
    """

    mode: Mode
    format: VerdictFormat
    nonce: str = ""
    count: int = 2
    scale: tuple[int, int] = (1, 10)
    ties: bool = True

    @property
    def letters(self) -> str:
        """What the completions are called."""
        return LETTERS[: self.count]

    @property
    def tag(self) -> str:
        """What begins the verdict line of the format ``tagged``."""
        return f"VERDICT-{self.nonce}:"


def instruction(spec: VerdictSpec) -> str:
    """The words that ask for a verdict in its form; they fill ``{verdict_instruction}`` of a prompt."""
    low, high = spec.scale
    match spec.format:
        case "json":
            return f"Answer with one JSON object and nothing else, of this form:\n{_json_form(spec)}"
        case "tagged":
            return (
                "End your answer with exactly one line of the following form, the word before the colon copied letter "
                f"by letter, and write nothing after it:\n{spec.tag} {_tagged_form(spec)}"
            )
        case "double_bracket":
            tie = ', "[[C]]" if they are equally good' if spec.ties else ""
            return f'End with your verdict in exactly this form: "[[A]]" if A is better, "[[B]]" if B is better{tie}.'
        case "result":
            what = "A or B" if spec.mode == "pairwise" else f"an integer from {low} to {high}"
            return f"Write your feedback first. Then end with [RESULT] and after it {what}, and nothing more."
        case "number":
            return f"End with your rating alone on the last line: one integer from {low} to {high}, nothing after it."
        case "llmbar":
            return 'End with "Therefore, Output (a) is better." or "Therefore, Output (b) is better."'
        case "two_scores":
            return (
                f"The first line of your answer must hold two numbers from {low} to {high} and nothing else: the score "
                "of A and the score of B, with a space between them. Explain them from the second line on."
            )
        case "mr_gsm8k":
            return (
                "End with three lines: Final Judgement: correct or wrong; First Error Step: its number, or N/A; "
                "Error Analysis: what is wrong there, or N/A."
            )


def _tagged_form(spec: VerdictSpec) -> str:
    low, high = spec.scale
    match spec.mode:
        case "pairwise":
            return "X\nwhere X is A if completion A is better, B if completion B is better" + (
                ", or tie if neither is." if spec.ties else "."
            )
        case "listwise":
            equal = " and = between completions that are equally good" if spec.ties else ""
            return (
                "X\nwhere X names all completions from best to worst, each once, with > between a better and a worse "
                f"one{equal}, such as {' > '.join(reversed(spec.letters))}."
            )
        case "rating":
            return f"X\nwhere X is an integer from {low} to {high}."
        case "steps":
            return (
                f"first error: X\nwhere X is the number of the first incorrect step, from 1 to {spec.count}, or none "
                "if no step is incorrect."
            )


def _json_form(spec: VerdictSpec) -> str:
    low, high = spec.scale
    match spec.mode:
        case "pairwise":
            choices = '"A", "B" or "tie"' if spec.ties else '"A" or "B"'
            return f'{{"id": "{spec.nonce}", "reason": "<your reasons>", "verdict": <{choices}>}}'
        case "listwise":
            equal = "; equally good completions share a list" if spec.ties else ""
            return (
                f'{{"id": "{spec.nonce}", "reason": "<your reasons>", "ranking": [["<letter of the best>"], '
                '["<letter of the next>"], ...]}\n'
                f"with all {spec.count} completions from best to worst, each once{equal}."
            )
        case "rating":
            return f'{{"id": "{spec.nonce}", "reason": "<your reasons>", "rating": <an integer from {low} to {high}>}}'
        case "steps":
            return (
                f'{{"id": "{spec.nonce}", "reason": "<your reasons>", "labels": '
                '[<"correct", "neutral" or "incorrect" for each step>]}\n'
                f"with exactly {spec.count} labels, in the order of the steps."
            )


def schema(spec: VerdictSpec) -> Mapping[str, Any]:
    """The JSON schema of a verdict: the reason before the verdict, so that it is written before what it is for.

    The question's nonce comes first: an answer to another question, as of the same completions in the other order, has
    another one.

    Only keywords that every server's strict mode knows: numbers are enumerated, lengths are checked when reading.
    """
    match spec.mode:
        case "pairwise":
            verdict: dict[str, Any] = {
                "verdict": {"type": "string", "enum": ["A", "B", *(["tie"] if spec.ties else [])]}
            }
        case "listwise":
            one = {"type": "string", "enum": list(spec.letters)}
            verdict = {"ranking": {"type": "array", "items": {"type": "array", "items": one}}}
        case "rating":
            verdict = {"rating": {"type": "integer", "enum": list(range(spec.scale[0], spec.scale[1] + 1))}}
        case "steps":
            verdict = {"labels": {"type": "array", "items": {"type": "string", "enum": list(STEP_LABELS)}}}
    properties = {"id": {"type": "string", "enum": [spec.nonce]}, "reason": {"type": "string"}, **verdict}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
