"""Verdicts in the forms of judge outputs that others have published: LLMBar's, vicuna's, MR-GSM8K's.

Each is read where its prompt asks for it, and only if it is said without contradiction there. This file knows text.

References:
    Zeng et al. 2023, LLMBar (arXiv:2310.07641); github.com/princeton-nlp/LLMBar, LLMEvaluator/evaluate.py.
    github.com/lm-sys/vicuna-blog-eval.
    Zeng et al. 2023, MR-GSM8K (arXiv:2312.17080); github.com/dvlab-research/MR-GSM8K.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OUTPUT_OPENS = re.compile(r"[\s#*\"']*Output \((?P<letter>[ab])\)(?: is better)?[ \t.*\"']*(?:\n|\Z)")
_OUTPUT_BETTER = re.compile(
    r"\bOutput \((?P<letter>[ab])\) is (?:the |a )?better\b(?! than Output \((?P=letter)\))"
    r"|(?P<denied>(?i:\b(?:if|whether|not|why|neither)\b|\b(?:claims?|claimed|says|said|asserts?|states?)(?: that)?"
    r"[\s*\"'“]*(?=Output \()))"
    r"|(?P<ends>[.;:])"
)
"""Who is called better, words after which the rest of the clause says nothing of that, and ends of clauses."""


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """Which output is called better.

    Attributes:
        at: Index in the text of the letter, ``a`` or ``b``.
        begins: Index at which the verdict's words begin.
    """

    at: int
    begins: int


def output_verdict(text: str) -> OutputVerdict | str:
    """LLMBar's verdict: the last line says that one output is better, or the first line is nothing but the verdict.

    Both places count, for the prompts without reasons ask for the verdict alone and many judges give it first; where
    they contradict each other, or one of them does itself, there is no verdict.

    The authors' own code takes the first pattern that is found anywhere and looks for ``Output (a)`` before
    ``Output (b)``, so that an answer in which both are called better by somebody counts for (a).

    Returns:
        The verdict, or what stands there instead.
    """
    opens = _OUTPUT_OPENS.match(text)
    body = text.rstrip()
    start = body.rfind("\n") + 1
    found, denied = [], False
    for match in _OUTPUT_BETTER.finditer(body, start):
        if match["letter"]:
            found += [] if denied else [match]
        else:
            denied = match["denied"] is not None
    found = [opens, *found] if opens else found
    if len({match["letter"] for match in found}) != 1:
        return body[start:]
    return OutputVerdict(found[-1].start("letter"), found[-1].start())


_SCORES = re.compile(r"\s*(\d{1,3}(?:\.\d{1,3})?)(?:\s*,\s+|\s+)(\d{1,3}(?:\.\d{1,3})?)\s*")


@dataclass(frozen=True, slots=True)
class ScorePair:
    """Two scores and what is said for them."""

    first: float
    second: float
    rest: str


def two_scores(text: str) -> ScorePair | str:
    """Vicuna's verdict: the first line that is not blank holds two numbers and nothing else.

    A comma between them needs a space after it: ``8,5`` may be one number.

    Returns:
        The scores, or the first line where it holds something else.
    """
    line, _, rest = text.strip().partition("\n")
    found = _SCORES.fullmatch(line)
    return ScorePair(float(found[1]), float(found[2]), rest.strip()) if found else line


_JUDGEMENT = re.compile(r"^[ \t*#]*Final Judge?ment[ \t*]*:[ \t*]*(\w+)[ \t*.]*$", re.IGNORECASE | re.MULTILINE)
_FIRST_ERROR = re.compile(
    r"^[ \t*#]*First Error Step[ \t*]*:[ \t*]*(?:Step[ \t]*)?(\d{1,4}|N/?A|None)[ \t*.]*$", re.IGNORECASE | re.MULTILINE
)
_ANALYSIS = re.compile(r"^[ \t*#]*Error Analysis[ \t*]*:", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FirstError:
    """Where a solution first goes wrong.

    Attributes:
        step: Its number, from 1; None where the solution is called correct.
        reason: All that is said.
    """

    step: int | None
    reason: str


def first_error_verdict(text: str) -> FirstError | str:
    """MR-GSM8K's verdict: the last ``Final Judgement`` line and the ``First Error Step`` line after it.

    Returns:
        The verdict, or what stands there instead: no judgement, one that is neither right nor wrong, or a step that
        does not fit it.
    """
    judged = list(_JUDGEMENT.finditer(text))
    if not judged:
        return text.rstrip().rpartition("\n")[2]
    said = judged[-1][1].casefold()
    analysis = _ANALYSIS.search(text, judged[-1].end())
    steps = _FIRST_ERROR.findall(text, judged[-1].end(), analysis.start() if analysis else len(text))
    if said not in ("correct", "right", "wrong", "incorrect") or len(set(steps)) > 1:
        return f"{judged[-1][0].strip()} {' '.join(steps)}"
    if said in ("correct", "right"):
        wrong = bool(steps) and steps[0].isdigit()
        return f"called {said}, with an error in step {steps[0]}" if wrong else FirstError(None, text.strip())
    if not steps or not steps[0].isdigit():
        return f"called {said}, without a step"
    return FirstError(int(steps[0]), text.strip())
