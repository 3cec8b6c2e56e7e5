"""How probable a verdict was, by the log-probabilities of the tokens that say it.

The answer's text says where its verdict stands; the token that begins there tells the alternatives. What they mean is
summed over spellings (``A``, `` A``, ``"A``), and divided by the sum over all that mean a verdict. Where that sum is
small, or where it cannot be known what a token means, there is no probability: None, never a guess.

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

_AROUND = " \t\r\n\"'`*_()[]{},.:;"


def choice_probabilities(
    tokens: Sequence[TokenLogprobs], text: str, start: int, labels: Mapping[str, Choice]
) -> dict[Choice, float] | None:
    """P(choice) over the choices, by the token that begins at a place of the answer.

    Args:
        tokens: The answer's tokens.
        text: The answer's text.
        start: Where the verdict begins in it.
        labels: What a verdict is called, in lower case, to what it means.

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
    if not total >= LEAST_MASS:
        return None
    return {choice: probability / total for choice, probability in mass.items()}


def p_first(probabilities: Mapping[Choice, float]) -> float:
    """P(the first shown is preferred), a tie counting half."""
    return min(1.0, max(0.0, probabilities["first"] + probabilities.get("tie", 0.0) / 2))


def expected_rating(tokens: Sequence[TokenLogprobs], text: str, start: int, scale: tuple[int, int]) -> float | None:
    """The mean of the rating, sum over r of r P(r), by the tokens that begin at a place of the answer.

    Where digits are tokens of their own, "1" begins both 1 and 10. If the answer has a "1" there, the next token's
    alternatives divide its probability; if it has another digit, nothing does, and there is no mean unless the "1" has
    less than a hundredth of the probability, which is then left out.

    Args:
        tokens: The answer's tokens.
        text: The answer's text.
        start: Where the rating begins in it.
        scale: Lowest and highest rating; a scale that goes beyond 10 has no mean.
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
    total = sum(mass.values())
    return sum(rating * probability for rating, probability in mass.items()) / total if total else None


def _share_of_ten(tokens: Sequence[TokenLogprobs], position: int) -> float | None:
    """P(the next digit is 0 | this one is 1), where the answer has a 1 here; None where it has not."""
    if tokens[position].token.strip(_AROUND) != "1":
        return None
    if tokens[position].token.rstrip(_AROUND) != tokens[position].token or position + 1 == len(tokens):
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
            return position if not token.token[: place - begin].strip(_AROUND) else None
        begin = end
    return None


def _spelled(token: TokenLogprobs) -> dict[str, float]:
    """Probability of each alternative as it is spelled, the token that was taken among them."""
    found = {}
    for word, logprob in ((token.token, token.logprob), *token.top):
        if not math.isnan(logprob):
            found[word] = math.exp(min(logprob, 0.0))
    return found


def _alternatives(token: TokenLogprobs) -> dict[str, float]:
    """Probability of each alternative without the marks around it."""
    found: dict[str, float] = {}
    for word, probability in _spelled(token).items():
        bare = word.strip(_AROUND)
        found[bare] = found.get(bare, 0.0) + probability
    return found


def _meant(word: str, labels: Mapping[str, Choice]) -> Choice | None:
    """The one label that a token says or begins; longer labels ("tie") may be several tokens."""
    if not word:
        return None
    meant = {choice for label, choice in labels.items() if label.startswith(word)}
    return meant.pop() if len(meant) == 1 else None
