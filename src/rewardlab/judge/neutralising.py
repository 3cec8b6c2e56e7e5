"""Texts made harmless to quote: nothing inside one can end its fence, open a chat turn or pass for a verdict.

There is one kind of change: a character is replaced by its name, ``⟦U+003C⟧`` for ``<``. It can be seen, and it can be
undone: whatever matches ``⟦U+([0-9A-F]{4,6})⟧`` is that character, since a ``⟦`` that would begin such a name is itself
replaced. Ordinary texts stay as they are, but for markup that is some model's own token, such as HTML's ``<s>``,
and for what nobody sees, such as a soft hyphen.
"""

from __future__ import annotations

import json
import re
from functools import cache

from rewardlab.judge.verdict_formats import VerdictFormat
from rewardlab.types import Message, Text, messages_of

_UNSEEN = (
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # control characters but tab and newline
    r"|\r(?!\n)"  # alone, it overwrites a line on a terminal
    r"|[\u200b\u2028\u2029\u2060-\u2065\ufeff\ufff9-\ufffb\ufffe\uffff]"  # no width
    r"|[\u00ad\u034f\u115f\u1160\u180e\u3164\uffa0]"  # nothing to see: soft hyphen, fillers
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"  # turned direction
    r"|[\ufe00-\ufe0d\U000e0100-\U000e01ef]|(?<=[\ufe00-\ufe0f])[\ufe0e\ufe0f]"  # variants, but the one of an emoji
    r"|[\ud800-\udfff]"  # half of a UTF-16 pair: no JSON body can carry it
    r"|[\U000e0000-\U000e007f]"  # tags: letters that models read and nobody sees
)
_CHAT_TOKENS = (
    r"<(?=[|｜][^\s<>|｜]{1,64}[|｜]>)"  # noqa: RUF001  <|im_start|>, <|eot_id|>, and with the full-width bars of DeepSeek
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|cls|sep|sop|eop|eoh|eoa|image|thought|think|thinking)>)"
    r"|<(?=/?(?:tool_call|tool_response|tools|seed:\w{1,32})>)"
    r"|<(?=(?:start|end)_of_\w{1,32}>|unused_?\d{1,5}>|extra_id_\d{1,5}>|reserved_\w{1,32}>)"
    r"|<(?=fim_\w{1,32}>|SPECIAL_\d{1,5}>|TOKENS_UNUSED_\d{1,5}>)"
    r"|<(?=</?SYS>>)|(?<=<)<(?=/?SYS>>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_CONTENT|TOOL_RESULTS|THINK|IMG)\])"
    r"|\[(?=/?(?:CLS|SEP|MASK|PAD|g?MASK)\])"
    r"|◁(?=/?\w{1,32}▷)"
)
_FENCES = r"<(?=<<[ \t]{0,8}(?:BEGIN|END|TURN)\b)"
_ESCAPE = r"⟦(?=U\+[0-9A-F]{4,6}⟧)"
_VERDICTS: dict[VerdictFormat, str] = {
    "tagged": r"V(?=ERDICT-\w{1,64}[ \t]{0,8}:)",
    "double_bracket": r"\[(?=\[[ \t]{0,8}(?:[ABC]|TIE)[ \t]{0,8}\]\])",
    "result": r"\[(?=RESULT[ \t]{0,8}\])",
    "llmbar": r"O(?=utput[ \t]{0,8}\([ab]\))",
    "mr_gsm8k": r"F(?=inal Judge?ment|irst Error Step)",
}
"""Format to what a verdict in it looks like. A number or an object could be anything; the one is a verdict only by its
place in the answer, the other only with the nonce."""


@cache
def _harmful(form: VerdictFormat) -> re.Pattern[str]:
    return re.compile("|".join((_UNSEEN, _CHAT_TOKENS, _FENCES, _ESCAPE, _VERDICTS.get(form, "(?!)"))), re.IGNORECASE)


def neutralise(text: str, nonce: str, form: VerdictFormat) -> str:
    """A text in which nothing can be mistaken for what stands around it.

    Args:
        text: As it came.
        nonce: The question's; a text that holds it, in capitals or not, has it broken.
        form: In which form the verdict is due; what looks like a verdict in another form stays.

    Returns:
        The text with characters replaced by ``⟦U+XXXX⟧``; the same text where there is nothing to replace.
    """
    # The nonce comes second: it is longer than any character's name, so no name can hold it.
    return re.sub(re.escape(nonce), _broken, _harmful(form).sub(_broken, text), flags=re.IGNORECASE)


def _broken(match: re.Match[str]) -> str:
    """What was found, with its first character replaced by its name."""
    return f"⟦U+{ord(match[0][0]):04X}⟧{match[0][1:]}"


def shown(value: Text, nonce: str, form: VerdictFormat, *, role: str) -> str:
    """A prompt or completion as the judge sees it: plain text as it is, several turns each under a line with its role.

    Args:
        value: Text or messages.
        nonce: The question's.
        form: In which form the verdict is due.
        role: The role that plain text has: ``"user"`` for a prompt, ``"assistant"`` for a completion. A single message
            of this role is shown as plain text, for it is the same thing.
    """
    messages = messages_of(value, role=role)
    if len(messages) == 1 and messages[0].get("role") == role and set(messages[0]) <= {"role", "content"}:
        return neutralise(_content(messages[0]), nonce, form)
    turns = []
    for number, message in enumerate(messages, start=1):
        told = [f"<<<TURN {number} {nonce}: {neutralise(str(message.get('role')), nonce, form)}>>>"]
        told.append(neutralise(_content(message), nonce, form))
        more = {key: value for key, value in message.items() if key not in ("role", "content") and value is not None}
        told += [neutralise(f"{key}: {_json(value)}", nonce, form) for key, value in more.items()]
        turns.append("\n".join(told))
    return "\n".join(turns)


def fenced(text: str, title: str, nonce: str) -> str:
    """A neutralised text between two lines that name it and that it cannot hold."""
    return f"<<<BEGIN {title} {nonce}>>>\n{text}\n<<<END {title} {nonce}>>>"


def _content(message: Message) -> str:
    content = message.get("content")
    if content is None:
        return ""
    return content if isinstance(content, str) else _json(content)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
