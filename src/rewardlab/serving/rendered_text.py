"""Text that a client has already rendered: what a model's own template writes around a conversation, and making it so.

Clients differ in what they leave of it: verl strips the begin token and others double it, Qwen's own template writes a
newline behind ``<|im_end|>``, a batch that is decoded whole has pads at its ends, an answer that was cut at its longest
has no end token. A text that is the model's own rendering, changed in any of these ways, becomes that rendering again.

All is learned by rendering probes with the tokenizer's chat template, sealed or not; this file knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from rewardlab.data.template import begin_token, render, tokenize
from rewardlab.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ASKED, _SAID = "ping", "pong"


class RenderedText:
    """What one tokenizer's template writes around a conversation.

    Args:
        tokenizer: A tokenizer with a chat template.
        pads: Texts of the padding tokens.
        separator: Of a process model, the token that ends each step.

    Attributes:
        begin: The token that every rendering begins with; empty where there is none.
        openings: What tells a rendered text by its beginning, behind the begin token: the first line that the template
            writes before a first user turn, and before a first system turn. A line of words alone (``User:``) is
            nothing that people would not write too, and is left out.
        tail: What is written behind an answer.
        end: The special token in the tail at which the score is read; empty where there is none.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, pads: Sequence[str] = (), separator: str | None = None
    ) -> None:
        asked, said = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _SAID}
        whole = render(tokenizer, [asked, said])
        begin = begin_token(tokenizer)
        self.begin = begin if begin and whole.startswith(begin) else ""
        self.tail = whole.rpartition(_SAID)[2] if _SAID in whole else ""
        self.end = _last_special(tokenizer, self.tail)
        self._before_end, _, self._after_end = self.tail.rpartition(self.end) if self.end else (self.tail, "", "")
        # What stands in front of an answer, and what of it is white space where the answer is empty.
        self._before_answer = whole.rpartition(_SAID)[0].rpartition(_ASKED)[2].rstrip()
        self._before_empty = ""
        with suppress(CheckpointError):  # some templates refuse an empty answer
            empty = render(tokenizer, [asked, {**said, "content": ""}]).removesuffix(self.tail)
            self._before_empty = empty[len(empty.rstrip()) :]
        # A template that trims contents would have trimmed the end of this one.
        self._trims = not render(tokenizer, [asked, {**said, "content": _SAID + "  "}]).endswith("  " + self.tail)
        self._pads = tuple(pads)
        self._separator = separator
        lines = {self._first_line(whole)}
        with suppress(CheckpointError):  # some templates know no system turn
            system = {"role": "system", "content": _ASKED}
            lines.add(self._first_line(render(tokenizer, [system, {**asked, "content": "x"}, said])))
        self._first_lines = () if "" in lines else tuple(sorted(lines))
        self.openings = tuple(sorted(line for line in lines if line and not line[0].isalnum()))

    def is_start(self, text: str) -> bool:
        """Whether a text begins as the template begins a conversation: with the begin token or one of the openings."""
        bare = self._without_front(text)
        front = text[: len(text) - len(bare)]
        return bool(self.begin and self.begin in front) or bare.lstrip().startswith(self.openings)

    def is_unlike(self, text: str) -> bool:
        """Whether a text that is said to be rendered begins otherwise than the template does, as far as that is known.

        Here words count as an opening too, and the begin token does not: other models have the same.
        """
        bare = self._without_front(text).lstrip()
        return bool(self._first_lines) and not bare.startswith(self._first_lines)

    def is_empty(self, text: str) -> bool:
        """Whether a text is nothing but what may stand in front of a conversation and behind it."""
        return not self._without_front(self.without_end(text)).strip()

    def as_own(self, text: str) -> str:
        """The text as the template would have written it, at both of its ends.

        Pads at either end go, and white space behind the end token. The begin token stands once. What the template
        writes behind an answer is completed; of a process model, the last step's separator too.
        """
        text = self._without_pads_behind(self._without_front(text))
        bare, tail = text.rstrip(), self.tail
        if self.end and bare.endswith(self.end):
            text = bare.removesuffix(self.end)
            tail = self.end + self._after_end  # what stands in front of it, if anything, is there
        elif not self.end and text.endswith(tail):
            text = text.removesuffix(tail)
        elif self._before_end.rstrip() and bare.endswith(self._before_end.rstrip()):
            text = bare.removesuffix(self._before_end.rstrip())
        elif self._trims:
            text = bare
            if self._before_answer and bare.endswith(self._before_answer):
                text += self._before_empty
        if self._separator is not None and self._separator in text:
            text = self._with_last_separator(text)
        return self.begin + text + tail

    def without_end(self, text: str) -> str:
        """An answer without the end token, and what stands behind that, if it ends with one; pads behind it go too."""
        text = self._without_pads_behind(text)
        bare = text.rstrip()
        return bare.removesuffix(self.end) if self.end and bare.endswith(self.end) else text

    def _with_last_separator(self, text: str) -> str:
        steps, own = text, self._before_end
        if own and text.endswith(own):
            steps = text.removesuffix(own)
        else:
            own = ""
        if steps.rstrip().endswith(str(self._separator)):
            return steps.rstrip() + own
        return steps + str(self._separator) + own

    def _without_front(self, text: str) -> str:
        """The text without pads and begin tokens in front; in one walk, for a text may be nothing else."""
        front, start = [token for token in (*self._pads, self.begin) if token], 0
        while token := next((token for token in front if text.startswith(token, start)), ""):
            start += len(token)
        return text[start:]

    def _without_pads_behind(self, text: str) -> str:
        """The text without pads, and white space behind them, at its end; likewise."""
        stop = len(text)
        while True:
            bare = stop
            while bare and text[bare - 1].isspace():
                bare -= 1
            pad = next((pad for pad in self._pads if text.endswith(pad, 0, bare)), "")
            if not pad:
                return text[:stop]
            stop = bare - len(pad)

    def _first_line(self, rendered: str) -> str:
        before = rendered.removeprefix(self.begin).partition(_ASKED)[0]
        return before.lstrip().partition("\n")[0].rstrip()


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The texts of a tokenizer's special tokens."""
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def _last_special(tokenizer: PreTrainedTokenizerBase, tail: str) -> str:
    """The special token that a tail ends with, but for white space; empty where it ends with none."""
    bare = tail.rstrip()
    ids = tokenize(tokenizer, bare) if bare else []
    token = str(tokenizer.convert_ids_to_tokens(ids[-1])) if ids else ""
    return token if token in special_tokens(tokenizer) and bare.endswith(token) else ""
