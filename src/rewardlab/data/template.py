"""Sealing a tokenizer's chat template, so that every tool turns one conversation into the same ids.

A reward model reads its score at the last token, so what the rendered text *ends* with decides the score, and tools
disagree about it: TRL 1.16 reads the newline after Qwen's ``<|im_end|>``, adds a second BOS to text that has one, and
adds no EOS to messages. :func:`seal_chat_template` rewrites the template once, when a model is made, so that what it
renders

* starts with the token the tokenizer itself puts in front (BOS, or BERT's ``[CLS]``), exactly once, and
* ends with an end-of-turn or EOS token (``[SEP]``), with nothing after it.

From then on the whole text-to-ids rule is ``tokenizer.apply_chat_template(messages)``, in rewardlab, in plain
transformers and in any server. A tokenizer without a template gets the plain one (:func:`plain_template`), which is
saved with the model.

This file knows tokenizers and templates; truncation and groups are :mod:`rewardlab.data.encoding`'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewardlab.data.fixed_template import without_clock
from rewardlab.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# One exchange, and two: enough to see how a template starts, ends and separates.
_PROBES: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "ping"}, {"role": "assistant", "content": "pong"}],
    [
        {"role": "user", "content": "ping"},
        {"role": "assistant", "content": "pong"},
        {"role": "user", "content": "again"},
        {"role": "assistant", "content": "and again"},
    ],
)


@dataclass(frozen=True, slots=True)
class SealedTemplate:
    """What sealing found and did.

    Attributes:
        origin: ``"tokenizer"`` where the tokenizer had a chat template, ``"plain"`` where rewardlab's was given to it.
        begin_token: The token every rendering starts with; None where the tokenizer puts none in front.
        end_token: The token every rendering ends with: the score is read there.
        changes: What had to be changed in the tokenizer's own template, in words; empty if it was already sealed.
    """

    origin: str
    begin_token: str | None
    end_token: str
    changes: tuple[str, ...]


def seal_chat_template(tokenizer: PreTrainedTokenizerBase) -> SealedTemplate:
    """Make the tokenizer's chat template start and end as the read-out needs; changes the tokenizer in place.

    Sealing a sealed template changes nothing.

    Args:
        tokenizer: Any transformers tokenizer; one without a chat template is given :func:`plain_template`.

    Returns:
        What was found and changed.

    Raises:
        CheckpointError: The tokenizer has neither an EOS nor a SEP token, or its template cannot render a plain
            user/assistant exchange, leaves turns out, writes something random, or does not start and end as promised
            even after sealing.
    """
    begin, end = begin_token(tokenizer), _end_token(tokenizer)
    template = chat_template_of(tokenizer)
    if template is None:
        tokenizer.chat_template = plain_template(begin, end)
        _require_sealed(tokenizer, begin)
        return SealedTemplate("plain", begin, end, ())

    changes = []
    if (fixed := without_clock(template)) != template:
        changes.append("one fixed day put in the place of the clock: scores would have changed every day")
        tokenizer.chat_template = template = fixed
    rendered = render(tokenizer, _PROBES[0])
    around = len(changes)
    if begin and not rendered.startswith(begin):
        changes.append(f"{begin} put in front: the tokenizer adds it to text, the template did not")
    end_ids = _without_trailing_space(tokenizer, tokenize(tokenizer, rendered))
    ends_itself = bool(end_ids) and end_ids[-1] in _special_ids(tokenizer)
    if not ends_itself:
        changes.append(f"{end} put at the end: the template ended an answer with no special token")
    elif rendered != rendered.rstrip():
        changes.append("white space after the last special token removed: the score would have been read there")
    if len(changes) > around:
        tokenizer.chat_template = _sealed(
            template,
            begin=begin if begin and not rendered.startswith(begin) else None,
            end=None if ends_itself else end,
        )
    _require_sealed(tokenizer, begin)
    last = tokenize(tokenizer, render(tokenizer, _PROBES[0]))[-1]
    return SealedTemplate("tokenizer", begin, str(tokenizer.convert_ids_to_tokens(last)), tuple(changes))


def plain_template(begin: str | None, end: str) -> str:
    r"""The template of models whose tokenizer has none: ``User: ...\n\nAssistant: ...`` between two boundary tokens.

    Args:
        begin: Token in front, None for none.
        end: Token at the end.
    """
    return (
        (_literal(begin) if begin else "") + "{% for message in messages %}"
        "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
        "{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% else %}" + _literal(end) + "{% endif %}"
    )


def chat_template_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The template ``apply_chat_template`` would use, or None."""
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return None if template is None else str(template)


def template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the chat template's text, as the contract stores it."""
    return hashlib.sha256((chat_template_of(tokenizer) or "").encode()).hexdigest()


def render(tokenizer: PreTrainedTokenizerBase, messages: Any, *, add_generation_prompt: bool = False) -> str:
    """The conversation as text, through the tokenizer's chat template.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The turns.
        add_generation_prompt: End with what an answer of the model would follow.

    Raises:
        CheckpointError: The template refuses the conversation; the message repeats its reason.
    """
    try:
        return str(
            tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt)
        )
    except Exception as error:  # a template is a program of its author's, which may raise anything
        roles = [message.get("role") for message in messages]
        raise CheckpointError(
            f"the chat template refuses a conversation with roles {roles}: {error or type(error).__name__}",
            hint="change the rows to what the template allows, or give the tokenizer another chat template",
        ) from error


def tokenize(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of rendered text, with nothing added: the template has put the special tokens in."""
    # verbose=False: a length beyond the model's is cut, or refused, by the encoder.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def begin_token(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token the tokenizer puts in front of text by itself (BOS or CLS); None if it puts none.

    Looked up by tokenising, since the flags that announce it (``add_bos_token``) are not always true to what happens.
    """
    bare, full = tokenize(tokenizer, "a"), tokenizer("a")["input_ids"]
    if len(full) > len(bare) and full[:1] != bare[:1]:
        return str(tokenizer.convert_ids_to_tokens(full[0]))
    return None


def _end_token(tokenizer: PreTrainedTokenizerBase) -> str:
    token = tokenizer.eos_token or tokenizer.sep_token
    if token is None:
        raise CheckpointError(
            "the tokenizer has neither an eos_token nor a sep_token, so there is no token to read the score at",
            hint="set tokenizer.eos_token and save the tokenizer",
        )
    return str(token)


def _sealed(template: str, *, begin: str | None, end: str | None) -> str:
    """The template wrapped: rendered into a variable, then given its boundary tokens."""
    # The newline after the opening tag is eaten by trim_blocks, so the original starts at a line start, as it did;
    # Jinja drops one newline at the end of a template, which in here would stay.
    body = template[:-1] if template.endswith("\n") else template
    start = _literal(begin) if begin else ""
    close = "{{ rewardlab_text.rstrip() }}"
    if end:
        literal = end.replace("'", "\\'")
        close += (
            "{% if messages[-1]['role'] == 'assistant' and not rewardlab_text.rstrip().endswith('" + literal + "') %}"
            "{{ '" + literal + "' }}{% endif %}"
        )
    return (
        "{% set rewardlab_text %}\n"
        + body
        + "{% endset %}"
        + start
        + "{% if add_generation_prompt %}{{ rewardlab_text }}"
        "{% else %}" + close + "{% endif %}"
    )


def quoted(token: str) -> str:
    """A token as a string of Jinja's."""
    return "'" + token.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _literal(token: str) -> str:
    return "{{ " + quoted(token) + " }}"


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return added | set(tokenizer.all_special_ids)


def _without_trailing_space(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    end = len(ids)
    while end and not str(tokenizer.decode(ids[end - 1 : end])).strip():
        end -= 1
    return ids[:end]


def _require_sealed(tokenizer: PreTrainedTokenizerBase, begin: str | None) -> None:
    """Check the promise on two conversations, whatever the template is, and that it writes what was said in them."""
    told = render(tokenizer, _PROBES[0])
    for turn, message in enumerate(_PROBES[0]):
        other = [*_PROBES[0][:turn], {**message, "content": "other words"}, *_PROBES[0][turn + 1 :]]
        if render(tokenizer, other) == told:
            raise CheckpointError(
                f"the chat template leaves out what the {message['role']} says: all such texts would score the same",
                hint="give the tokenizer a chat template that writes every turn's content, which is a string",
            )
    for probe in _PROBES:
        ids = tokenize(tokenizer, render(tokenizer, probe))
        begin_id = tokenizer.convert_tokens_to_ids(begin) if begin else None
        starts = begin_id is None or (ids[:1] == [begin_id] and ids[1:2] != [begin_id])
        if not starts or not ids or ids[-1] not in _special_ids(tokenizer):
            shown = tokenizer.convert_ids_to_tokens(ids[:2] + ids[-2:])
            raise CheckpointError(
                f"the chat template does not start with {begin!r} once and end with a special token: its first and "
                f"last two tokens are {shown}",
                hint="give the tokenizer a chat template that ends an assistant turn with its end-of-turn or EOS token",
            )
