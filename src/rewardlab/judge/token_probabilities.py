"""How probable a verdict was, by the log-probabilities of the tokens that say it.

The answer's text says where its verdict stands; the token that begins there tells the alternatives. What they mean is
summed over spellings (``A``, `` A``, ``"A``), and divided by the sum over all that mean a verdict. Where that sum is
small, where it cannot be known what a token means, or where the numbers contradict each other or the verdict, there is
no probability: None, never a guess.

References:
    AlpacaEval's weighted verdict, ``completion_parsers.py``: exp(log p) of one label by the sum over the labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rewardlab.judge.chat import TokenLogprobs
from rewardlab.judge.verdicts import Choice

LEAST_MASS = 0.5
"""Least probability that the verdicts must have together."""

MOST_AMBIGUOUS = 0.01
"""Most probability, of that of all verdicts, that may stand on a token that begins two numbers, "1" and "10"."""

MOST_MASS = 1.02
"""Most that the probabilities of one token's alternatives may sum to; the rest is rounding."""

MOST_APART = 0.01
"""Most, in nats, that the log-probability of the token taken may differ from its own entry among the alternatives."""

_BEFORE = " \t\r\n\"'`*_([{:"
_AFTER = _BEFORE + ".,;)]}"


def choice_probabilities(
    tokens: Sequence[TokenLogprobs], text: str, start: int, labels: Mapping[str, Choice], taken: Choice
) -> dict[Choice, float] | None:
    """P(choice) over the choices, by the token that begins at a place of the answer.

    Args:
        tokens: The answer's tokens.
        text: The answer's text.
        start: Where the verdict begins in it.
        labels: What a verdict is called, in lower case, to what it means.
        taken: The verdict as it was read. At temperature 0 it is the likeliest; where another is, nothing can be
            believed.

    Returns:
        Probabilities that sum to 1; None where the tokens do not tell.
    """
    position = _token_at(tokens, text, start)
    if position is None:
        return None
    mass: dict[Choice, float] = dict.fromkeys(labels.values(), 0.0)
    for word, probability in _alternatives(tokens[position]).items():
        meant = _meant(word.casefold(), labels)
        if meant is not None:
            mass[meant] += probability
    total = sum(mass.values())
    if not total >= LEAST_MASS or mass[taken] < max(mass.values()):
        return None
    return {choice: probability / total for choice, probability in mass.items()}


def p_first(probabilities: Mapping[Choice, float]) -> float:
    """P(the first shown is preferred), a tie counting half."""
    return min(1.0, max(0.0, probabilities["first"] + probabilities.get("tie", 0.0) / 2))


def expected_rating(
    tokens: Sequence[TokenLogprobs], text: str, start: int, scale: tuple[int, int], taken: int
) -> float | None:
    """The mean of the rating, sum over r of r P(r), by the tokens that begin at a place of the answer.

    Where digits are tokens of their own, "1" begins both 1 and 10. If the answer has a "1" there, the next token's
    alternatives divide its probability; if it has another digit, nothing does, and there is no mean unless the "1" has
    less than a hundredth of the probability, which is then left out.

    Args:
        tokens: The answer's tokens.
        text: The answer's text.
        start: Where the rating begins in it.
        scale: Lowest and highest rating; a scale that goes beyond 10 has no mean.
        taken: The rating as it was read; there is no mean where another one is likelier.
    """
    low, high = scale
    position = _token_at(tokens, text, start)
    if position is None or high > 10:
        return None
    mass = dict.fromkeys(range(low, high + 1), 0.0)
    alternatives = _alternatives(tokens[position])
    for word, probability in alternatives.items():
        if word.isascii() and word.isdigit() and int(word) in mass and str(int(word)) == word:
            mass[int(word)] += probability
    total = sum(mass.values())
    if not total >= LEAST_MASS:
        return None
    if high == 10 and mass.get(1, alternatives.get("1", 0.0)) and "10" not in alternatives:
        if 1 not in mass:
            return None  # a scale from 2 on: what the "1" begins cannot be divided
        divided = _share_of_ten(tokens, position)
        if divided is None:
            if mass[1] > MOST_AMBIGUOUS * total:
                return None
            mass[1] = 0.0
        else:
            mass[10] = mass[1] * divided
            mass[1] -= mass[10]
    if mass[taken] < max(mass.values()):
        return None
    return sum(rating * probability for rating, probability in mass.items()) / sum(mass.values())


def _share_of_ten(tokens: Sequence[TokenLogprobs], position: int) -> float | None:
    """P(the next digit is 0 | this one is 1), where the answer has a 1 here; None where it has not."""
    if _bare(tokens[position].token) != "1":
        return None
    if tokens[position].token.rstrip(_AFTER) != tokens[position].token or position + 1 == len(tokens):
        return 0.0  # the number ends with this token
    following = _spelled(tokens[position + 1])
    known = sum(following.values())
    return sum(p for word, p in following.items() if word.startswith("0")) / known if known >= LEAST_MASS else None


def _token_at(tokens: Sequence[TokenLogprobs], text: str, start: int) -> int | None:
    """The token that holds the character at ``start``, with nothing but marks before it in the token."""
    joined = "".join(token.token for token in tokens)
    # The text may be the end of what was generated: a block of thoughts before it is cut off, and so are blanks.
    offset = joined.rstrip().rfind(text.rstrip())
    if offset < 0 or not text.strip() or joined[offset:].rstrip() != text.rstrip():
        return None
    place, begin = offset + start, 0
    for position, token in enumerate(tokens):
        end = begin + len(token.token)
        if begin <= place < end:
            return position if not token.token[: place - begin].strip(_BEFORE) else None
        begin = end
    return None


def _spelled(token: TokenLogprobs) -> dict[str, float]:
    """Probability of each alternative as it is spelled, the token that was taken among them.

    Returns:
        Nothing where they contradict each other: more than 1 together, or two of one token.
    """
    given = [(token.token, token.logprob), *token.top]
    if any(word == token.token and abs(logprob - token.logprob) > MOST_APART for word, logprob in token.top):
        return {}
    found = {word: math.exp(min(logprob, 0.0)) for word, logprob in given if not math.isnan(logprob)}
    return found if sum(found.values()) <= MOST_MASS else {}


def _alternatives(token: TokenLogprobs) -> dict[str, float]:
    """Probability of each alternative without the marks around it."""
    found: dict[str, float] = {}
    for word, probability in _spelled(token).items():
        bare = _bare(word)
        found[bare] = found.get(bare, 0.0) + probability
    return found


def _bare(word: str) -> str:
    """A token without the marks around it; a full stop before a number is no mark."""
    return word.lstrip(_BEFORE).rstrip(_AFTER)


def _meant(word: str, labels: Mapping[str, Choice]) -> Choice | None:
    """The one label that a token says or begins; longer labels ("tie") may be several tokens."""
    if not word:
        return None
    meant = {choice for label, choice in labels.items() if label.startswith(word)}
    return meant.pop() if len(meant) == 1 else None
