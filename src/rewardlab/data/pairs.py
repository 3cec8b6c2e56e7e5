"""Two completions that were compared -> a pair, preferred or tied: how much better, and how many thought so.

This file knows the columns of pairs; single columns are :mod:`rewardlab.data.columns`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rewardlab.data.columns import (
    ASKING,
    Row,
    answer_of,
    answered,
    as_came,
    number,
    number_of,
    probability,
    prompt_of,
    systems_of,
    text_or_messages,
    weight_of,
    which,
)
from rewardlab.data.transcripts import is_transcript, parse_transcript
from rewardlab.errors import DataError
from rewardlab.types import Message, Pair, PromptGroup, Text, messages_of, text_key

STRENGTHS = {
    "significantly": 3.0,
    "much": 3.0,
    "better": 2.0,
    "plainly": 2.0,
    "clearly": 2.0,
    "moderately": 2.0,
    "slightly": 1.0,
    "negligibly": 0.0,
    "unsure": 0.0,
    "negligibly unsure": 0.0,
}
"""Words for how much better one completion is, each also followed by "better", and their numbers; the scale is that of
Llama 2's annotators (arXiv:2307.09288, section 3.2.1): significantly better, better, slightly better, negligibly better
/ unsure."""

_WINNERS = ("winner", "preference", "preferred", "label", "choice", "chosen", "rejected")  # that would make a, b a pair
MODELS = ("model_a|model_1|model1", "model_b|model_2|model2")  # of completions named by their place


def pair(row: Row) -> PromptGroup:
    """``prompt, chosen, rejected``; sides that repeat the prompt in front (TRL, UltraFeedback) lose it there."""
    prompt, transcript = prompt_of(row)
    if prompt == "":
        return implicit_pair(row)
    sides = [answer_of(row, column, transcript) for column in ("chosen", "rejected")]
    if isinstance(sides[0], tuple) and isinstance(sides[1], tuple):
        turns = messages_of(prompt, role="user")
        # Where the sides also carry a system turn in front, it belongs to the prompt.
        first = sides[0][:1]
        system = first if first == sides[1][:1] and first and first[0]["role"] == "system" else ()
        for repeated in (system + turns, turns):
            begins = [_begins_with(side, repeated) for side in sides]
            if all(begins):
                prompt = prompt if repeated == turns else repeated
                sides = [side[len(repeated) :] for side in sides]
                break
            if any(begins):
                one, other = ("chosen", "rejected") if begins[0] else ("rejected", "chosen")
                raise DataError(f"different prompts: {one} repeats the prompt, {other} does not")
    return _two_sides(row, prompt, *sides)


def implicit_pair(row: Row) -> PromptGroup:
    """``chosen, rejected`` alone: two whole conversations, whose common leading turns are the prompt.

    Plain text without turns has no prompt that could be told from the answers: the prompt is then empty, and each text
    is a completion. What two texts happen to begin with alike is not taken for a prompt.
    """
    chosen, rejected = text_or_messages(row["chosen"], "chosen"), text_or_messages(row["rejected"], "rejected")
    in_transcript = False
    if isinstance(chosen, str) and isinstance(rejected, str) and chosen.strip() and rejected.strip():
        in_transcript = is_transcript(chosen)
        if in_transcript != is_transcript(rejected):
            raise DataError("different types: one of chosen and rejected is a transcript, the other is plain text")
        if in_transcript:
            chosen, rejected = parse_transcript(chosen), parse_transcript(rejected)
    if isinstance(chosen, str) or isinstance(rejected, str):
        return _two_sides(row, "", chosen, rejected)
    for column, turns in (("chosen", chosen), ("rejected", rejected)):
        if not turns or turns[-1]["role"] in ASKING:
            raise DataError(f"{column} is empty: the conversation has no answer at its end")
    if chosen == rejected and not _is_tie(row):
        raise DataError("identical sides: chosen and rejected are the same")
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    if chosen[common]["role"] in ASKING or rejected[common]["role"] in ASKING:
        raise DataError(f"different prompts: the two conversations part at turn {common + 1}, which is no answer")
    sides = [rest if not in_transcript else as_came(rest) for rest in (chosen[common:], rejected[common:])]
    return _two_sides(row, chosen[:common] or "", *sides)


def tie(row: Row) -> PromptGroup:
    """``prompt, a, b``: two completions that were judged equally good, with the raters' ``votes`` if known."""
    require_no_winner(row)
    prompt, transcript = prompt_of(row)
    sides = [answered(answer_of(row, column, transcript), column) for column in ("a", "b")]
    votes = votes_of(row, "a", "b")
    known = Pair(0, 1, weight=weight_of(row), p_chosen=share_of(votes), strength=0.0, tie=True, votes=votes)
    return PromptGroup(prompt, tuple(sides), (known,), systems=systems_of(row, 2, *MODELS))


def require_no_winner(row: Row) -> None:
    """Refuse a row ``prompt, a, b`` with a column that might say which is better: it is not guessed.

    Raises:
        DataError: It has one.
    """
    if (column := which(row, "|".join(_WINNERS))) is not None:
        raise DataError(
            f"a and b with a label: rows of prompt, a and b are ties, and this one has {column}; "
            "give chosen and rejected instead"
        )


def preference_strength(row: Row) -> PromptGroup:
    """HelpSteer2's and HelpSteer3's preferences: -3 (the first response is much better) to 3 (the second one is)."""
    column = which(row, "preference_strength|overall_preference") or ""
    preference = number(row[column], column)
    if not -3 <= preference <= 3:
        raise DataError(f"{column} is out of range: {preference:g}, expected -3 to 3")
    prompt, transcript = prompt_of(row, which(row, "prompt|context") or "")
    columns = [which(row, name) or "" for name in ("response_1|response1", "response_2|response2")]
    first, second = (answered(answer_of(row, name, transcript), name) for name in columns)
    if preference:
        _require_different(first, second, *columns)
    chosen = int(preference > 0)
    known = Pair(chosen, 1 - chosen, weight=weight_of(row), strength=abs(preference), tie=not preference)
    return PromptGroup(prompt, (first, second), (known,), systems=systems_of(row, 2, *MODELS))


def _two_sides(row: Row, prompt: Text, chosen: Text, rejected: Text) -> PromptGroup:
    if isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
        raise DataError("different types: one of chosen and rejected is text, the other is messages")
    sides = (answered(chosen, "chosen"), answered(rejected, "rejected"))
    tied = _is_tie(row)
    if not tied:
        _require_different(*sides, "chosen", "rejected")
    ratings = (_rating(row, "chosen"), _rating(row, "rejected"))
    stated, votes = row.get("p_chosen"), votes_of(row, "chosen", "rejected")
    known = Pair(
        0,
        1,
        margin=number_of(row, "margin"),
        weight=weight_of(row),
        p_chosen=share_of(votes) if stated is None else probability(stated, "p_chosen"),
        strength=_strength(row, *ratings, tied),
        tie=tied,
        votes=votes,
    )
    systems = systems_of(row, 2, "chosen_model|chosen-model", "rejected_model|rejected-model")
    return PromptGroup(prompt, sides, (known,), ratings=() if ratings == (None, None) else ratings, systems=systems)


def _rating(row: Row, side: str) -> float | None:
    column = which(row, f"{side}_rating|score_{side}")
    return None if column is None else number(row[column], column)


def _require_different(first: Text, second: Text, one: str, other: str) -> None:
    if text_key(first, role="assistant") == text_key(second, role="assistant"):
        raise DataError(f"identical sides: {one} and {other} are the same")


def _is_tie(row: Row) -> bool:
    value = row.get("tie")
    known = {"true": True, "false": False, "1": True, "0": False}.get(str(value).strip().lower())
    if value is not None and known is None:
        raise DataError(f"tie is not true or false: {str(value)[:40]!r} ({type(value).__name__})")
    return bool(known)


def _strength(row: Row, chosen: float | None, rejected: float | None, tied: bool) -> float | None:
    """How much better: the column, in words or numbers, else the difference of the ratings.

    Ratings that say the opposite of the label tell nothing of how much: the strength is then unknown.
    """
    value = row.get("strength")
    words = " ".join(re.findall(r"[a-z]+", value.lower())) if isinstance(value, str) else ""
    short = words if words == "better" else " ".join(word for word in words.split() if word != "better")
    stated = STRENGTHS[short] if short in STRENGTHS else number_of(row, "strength")
    if stated is not None and stated < 0:
        raise DataError(f"strength is negative: {stated:g}")
    if tied:
        if stated:
            raise DataError(f"strength contradicts the tie: {stated:g}")
        return 0.0
    if stated is None and chosen is not None and rejected is not None and chosen >= rejected:
        return chosen - rejected
    return stated


def votes_of(row: Row, first: str, second: str) -> tuple[float, float, float] | None:
    """How many raters preferred the first side, the second side, neither: ``votes: {first, second, equal}``.

    Votes under any other names say something else and are left alone.
    """
    votes = row.get("votes")
    counts = {k: v for k, v in votes.items() if v is not None} if isinstance(votes, Mapping) else {}
    if not {first, second} <= counts.keys() <= {first, second, "equal"}:
        return None
    one, other, equal = (number(counts.get(key, 0), f"votes[{key}]") for key in (first, second, "equal"))
    if min(one, other, equal) < 0 or not one + other + equal:
        raise DataError(f"votes are not counts: {first} {one:g}, {second} {other:g}, equal {equal:g}")
    return one, other, equal


def share_of(votes: tuple[float, float, float] | None) -> float | None:
    """The share of raters for the first side, and half of those who saw no difference."""
    return None if votes is None else (votes[0] + votes[2] / 2) / sum(votes)


def _begins_with(side: Text, prompt: tuple[Message, ...]) -> bool:
    """Whether messages begin with the prompt's; spaces around a turn do not count."""

    def plain(turns: tuple[Message, ...]) -> list[tuple[str, str]]:
        return [(turn["role"], turn["content"].strip()) for turn in turns]

    return isinstance(side, tuple) and len(side) >= len(prompt) and plain(side[: len(prompt)]) == plain(prompt)
