"""A chat template that says the same every day: what it takes from the clock is written into it, chance is refused.

Templates such as Llama 3.2's write today's date into the system turn. A score would then change at midnight, and so
would the probes of a contract. This file knows the text of a template and what transformers gives to one; it renders
nothing.
"""

from __future__ import annotations

import re
from datetime import datetime
from itertools import pairwise

from jinja2 import Environment, TemplateError

from rewardlab.errors import CheckpointError

# The day that Llama's own templates say where they are given no clock. It must be one and the same for ever: a run that
# is resumed tomorrow seals the same template again.
_DAY = datetime(2024, 7, 26)

_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_CLOCK = re.compile(r"\bstrftime_now\s*\(\s*(?:'([^'\\]*)'|\"([^\"\\]*)\")\s*\)")
_CALLED = re.compile(r"\bstrftime_now\s*\(")
_CHANCE = re.compile(r"\|\s*random\b|\blipsum\s*\(")


def asks_clock(template: str) -> bool:
    """Whether a chat template writes what day or time it is."""
    try:  # where a tag ends is more than a pattern can tell
        words = [word for _, kind, word in Environment().lex(template) if kind in ("name", "operator")]
    except TemplateError:
        return _CALLED.search(template) is not None
    return ("strftime_now", "(") in pairwise(words)


def without_clock(template: str) -> str:
    """The template with one fixed day in the place of the clock.

    Args:
        template: A chat template.

    Raises:
        CheckpointError: It asks the clock in a way that cannot be told beforehand, or writes something random.
    """

    def fixed(tag: re.Match[str]) -> str:
        return _CLOCK.sub(lambda call: repr(_DAY.strftime(call[1] or call[2] or "")), tag[0])

    if found := next((tag for tag in _TAG.findall(template) if _CHANCE.search(tag)), None):
        raise CheckpointError(
            f"the chat template writes something random: {found}", hint="give the tokenizer another chat template"
        )
    template = _TAG.sub(fixed, template)
    if asks_clock(template):
        raise CheckpointError(
            "the chat template asks for the time in a format that it computes: scores would change with the day",
            hint="write the date into the chat template, or the format: strftime_now('%d %b %Y')",
        )
    return template
