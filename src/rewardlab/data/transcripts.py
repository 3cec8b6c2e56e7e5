r"""hh-rlhf transcripts (``\n\nHuman: ...\n\nAssistant: ...``) -> messages.

This file knows one text format and nothing of rows. Spaces around a turn belong to the format and are stripped; the
rest of a turn stays as it is. The format is that of Anthropic's hh-rlhf data (github.com/anthropics/hh-rlhf).
"""

from __future__ import annotations

import re

from rewardlab.errors import DataError
from rewardlab.types import Message

_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
OPEN_TURN = "\n\nAssistant:"
"""What a transcript that waits for its next answer ends with."""


def is_transcript(text: str) -> bool:
    r"""Whether a text is an hh-rlhf transcript: it opens with ``\n\nHuman:``.

    Some copies of the data have lost the blank line in front; they are taken where an ``\n\nAssistant:`` turn follows.
    """
    if text.startswith("\n\nHuman:"):
        return True
    return text.lstrip().startswith("Human:") and OPEN_TURN in text


def parse_transcript(text: str) -> tuple[Message, ...]:
    """The turns of a transcript, in order.

    Args:
        text: A transcript (:func:`is_transcript`), or a part of one that begins with a turn's marker.

    Returns:
        One message per turn. A transcript that ends with an open ``Assistant:`` turn has a last message without
        content.

    Raises:
        DataError: There is text in front of the first turn.
    """
    before, *parts = _MARKER.split("\n\n" + text.lstrip())
    if before.strip() or not parts:
        raise DataError("not a transcript: there is no 'Human:' or 'Assistant:' turn at the start")
    return tuple(
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    )
