"""The truth of the demo world: how good a completion is for a prompt, read from the two texts alone.

:func:`true_utility` is the gold reward of every study: it judges any completion, also one that no sampler wrote, and it
saturates in every quality, so that more of a good thing ends up costing (courtesy becomes flattery, detail becomes
length). It knows nothing of labels, models or random numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rewardlab.studies import phrases
from rewardlab.studies.phrases import Topic
from rewardlab.types import Text, text_of

SUBSETS: Final = ("arithmetic", "explain", "format", "reply")
"""The task kinds; each is the ``subset`` of its rows."""

# What one unit of each quality adds to the utility, in logits: a pair whose utilities differ by 1 is labelled with the
# better completion 73 % of the time.
WEIGHTS: Final = {
    "answer": 3.4,
    "detail": 0.8,
    "format": 2.0,
    "courtesy": 0.9,
    "rudeness": -2.2,
    "hedging": -1.2,
    "padding": -1.0,
    "excess_length": -1.2,
}
REPLY_COURTESY_FACTOR: Final = 1.5  # manners matter more in a letter than in a sum
FREE_WORDS: Final = 40
WORDS_PER_UNIT_OF_EXCESS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a prompt asks for; only the fields of its kind are set."""

    kind: str
    topic: Topic | None = None
    aspect: str = ""
    form: str = ""
    result: int = 0
    name: str = ""
    day: str = ""
    stance: str = ""


def read_request(prompt: Text) -> Request:
    """What the prompt asks for.

    Raises:
        ValueError: The prompt is not of this world, so there is no truth about its completions.
    """
    text = text_of(prompt)
    addressee = re.search(r"\breply to (\w+)", text)
    day = next((d for d in phrases.DAYS if d in text), "")
    stance = re.search(r"\bsay (yes|no)\b", text, re.IGNORECASE)
    if addressee and day and stance:
        return Request("reply", name=addressee[1], day=day, stance=stance[1].lower())
    topic = next((t for t in phrases.TOPICS if re.search(rf"\b{t.name}\b", text)), None)
    form = next((f for f in phrases.FORMATS if f in text), "")
    if topic and form:
        return Request("format", topic=topic, form=form)
    aspect = next((a for a, cue in phrases.ASPECT_CUES.items() if re.search(cue, text, re.IGNORECASE)), "")
    if topic and aspect:
        return Request("explain", topic=topic, aspect=aspect)
    numbers = [int(n) for n in re.findall(r"\d+", text)]
    if len(numbers) == 2:
        subtract = re.search(phrases.DIFFERENCE_CUE, text) is not None
        return Request("arithmetic", result=max(numbers) - min(numbers) if subtract else sum(numbers))
    raise ValueError(f"not a prompt of the demo world: {text[:80]!r}")


def qualities(prompt: Text, completion: Text) -> dict[str, float]:
    """Each quality of a completion, in the units that :data:`WEIGHTS` weighs. All are bounded.

    Raises:
        ValueError: The prompt is not of this world.
    """
    request, text = read_request(prompt), text_of(completion)
    courtesies = _count(phrases.COURTESIES, text)
    sentences = _sentences(text)
    repeated = len(sentences) - len(set(sentences))
    excess = (len(text.split()) - FREE_WORDS) / WORDS_PER_UNIT_OF_EXCESS
    answer = _answer(request, text)
    return {
        "answer": answer,
        "detail": _detail(request, text) if answer > 0.5 else 0.0,
        "format": float(_in_format(request.form, text)) if request.form and text.strip() else 0.0,
        # Two marks of courtesy are worth having; from the fourth on it is flattery and costs, down to -2.
        "courtesy": float(max(min(courtesies, 5 - courtesies, 2), -2))
        * (REPLY_COURTESY_FACTOR if request.kind == "reply" else 1.0),
        "rudeness": float(min(_count(phrases.RUDENESSES, text), 1)),
        "hedging": float(min(_count(phrases.HEDGES, text), 2)),
        "padding": float(min(_count(phrases.FILLERS, text) + repeated, 3)),
        "excess_length": min(max(excess, 0.0), 3.0),
    }


def true_utility(prompt: Text, completion: Text) -> float:
    """How good the completion is for the prompt, in logits: P(a preferred to b) = sigmoid(utility_a - utility_b).

    Args:
        prompt: A prompt of this world, text or messages.
        completion: Any text or messages at all.

    Raises:
        ValueError: The prompt is not of this world.

    Example:
        >>> true_utility("What is 2 plus 3?", "The result is 5.")
        3.4
        >>> true_utility("What is 2 plus 3?", "The result is 5. I am not sure.")
        2.2
    """
    return sum(WEIGHTS[name] * value for name, value in qualities(prompt, completion).items())


def _answer(request: Request, text: str) -> float:
    """How far the completion gives what was asked, 0 to 1."""
    if request.kind == "arithmetic":
        stated = re.findall(r"\d+", text)
        # A near miss is worth a little, so that the quality is graded; the digits are capped to keep int() cheap.
        error = abs(int(stated[-1][:9]) - request.result) if stated else 10
        return max(0.0, 1.0 if error == 0 else 0.4 - 0.1 * error)
    if request.kind == "reply":
        held = [request.name in text, request.day in text, re.search(phrases.STANCE_CUES[request.stance], text)]
        against = any(re.search(cue, text) for stance, cue in phrases.STANCE_CUES.items() if stance != request.stance)
        return sum(bool(h) for h in held) / 3 - (1 / 3 if against and held[2] else 0.0)
    assert request.topic is not None
    named = re.search(rf"\b{request.topic.name}\b", text, re.IGNORECASE) is not None
    facts = {aspect for aspect in phrases.ASPECTS if request.topic.fact(aspect) in text}
    if not named:
        return 0.0
    if request.kind == "format":
        return 1.0 if facts else 0.3
    return 1.0 if request.aspect in facts else 0.5 if facts else 0.3


def _detail(request: Request, text: str) -> float:
    """What is given beyond the answer: further true facts, the working of a sum, the next step of a letter; 0 to 2."""
    if request.kind == "arithmetic":
        return float(re.search(r"\d+ [+-] \d+ = \d+", text) is not None)
    if request.kind == "reply":
        return float(any(step in text for step in phrases.NEXT_STEPS))
    assert request.topic is not None
    return float(sum(request.topic.fact(aspect) in text for aspect in phrases.ASPECTS) - 1)


def _in_format(form: str, text: str) -> bool:
    """Whether the text has the form that was asked for."""
    if form == "as a list":
        return len(re.findall(r"^- \S", text, re.MULTILINE)) >= 2
    if form == "in one sentence":
        return len(_sentences(text)) == 1 and "\n" not in text.strip()
    return len(text.split()) <= int(re.findall(r"\d+", form)[0])


def _sentences(text: str) -> list[str]:
    """The sentences and list items of a text, stripped, in lower case."""
    pieces = re.split(r"[.!?\n]+", text.lower())
    return [piece.strip(" -") for piece in pieces if piece.strip(" -")]


def _count(table: tuple[str, ...], text: str) -> int:
    """How often any sentence of a table occurs in the text, its case and full stop aside."""
    lower = text.lower()
    return sum(lower.count(entry.lower().rstrip(".")) for entry in table)
