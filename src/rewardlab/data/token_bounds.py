"""How many tokens a text has at least, found without tokenising it.

A text of a hundred thousand characters takes a tokenizer a good part of a second, only to be found too long for a model
that reads a few hundred tokens. Where a tokenizer merges bytes and drops none (byte-level BPE: GPT-2's, Llama 3's,
Qwen's), every token stands for as many bytes as it has. So if the longest token that holds the byte b has L(b) bytes, a
token's bytes together weigh at most 1 where each weighs 1 / L(b), and a text has at least as many tokens as its bytes
weigh. Of other tokenizers nothing is said.

This file knows tokenizers; what is done about a text that is too long is the encoder's matter.
"""

from __future__ import annotations

import json
import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ROUNDING = 1e-6
"""Of the weights' sum, so that no bound is too high by one."""


class TokenBounds:
    """Least numbers of tokens, for one tokenizer.

    Args:
        tokenizer: The tokenizer; nothing is looked at before a bound is asked for.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def at_least(self, text: str) -> int:
        """A number of tokens that the text has or exceeds, special tokens in it counted, none added; 0 if unknown.

        Args:
            text: A text without lone surrogates.
        """
        if not self._weights:
            return 0
        normalizer = self._tokenizer.backend_tokenizer.normalizer
        # Every part of a text in normal form is in normal form, so also what lies between special tokens.
        if normalizer is not None and not text.isascii() and normalizer.normalize_str(text) != text:
            return 0
        own = text.encode()
        weight = math.fsum(own.count(byte) * self._weights[byte] for byte in set(own))
        return math.ceil(weight * (1 - _ROUNDING))

    @cached_property
    def _weights(self) -> list[float]:
        """1 / L(b) of each byte; empty where a token may stand for other bytes than its own."""
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        if not _keeps_bytes(self._tokenizer):
            return []
        chars: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
        byte_of = {char: byte for byte, char in chars.items()}
        longest = [0] * 256
        added = self._tokenizer.added_tokens_decoder
        texts = [token.content.encode() for token in added.values()]
        for token, number in self._tokenizer.get_vocab().items():
            if number not in added:
                if not byte_of.keys() >= set(token):
                    return []
                texts.append(bytes(byte_of[char] for char in token))
        for text in texts:
            for byte in set(text):
                longest[byte] = max(longest[byte], len(text))
        return [1 / length for length in longest] if all(longest) else []


def _keeps_bytes(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether every byte of a text, in Unicode's normal form C, is in one token: nothing dropped, nothing replaced."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE" or backend.truncation is not None:
        return False
    if backend.normalizer is not None and json.loads(backend.normalizer.__getstate__())["type"] != "NFC":
        return False
    # Special tokens may take the white space beside them along, however much it is.
    if any(token.lstrip or token.rstrip for token in tokenizer.added_tokens_decoder.values()):
        return False
    if backend.pre_tokenizer is None:
        return False
    splitter = json.loads(backend.pre_tokenizer.__getstate__())
    parts = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    others = all(
        part["type"] == "Digits" or (part["type"] == "Split" and part["behavior"] != "Removed") for part in parts[:-1]
    )
    return others and parts[-1]["type"] == "ByteLevel"
