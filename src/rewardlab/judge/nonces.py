"""Words that nobody can guess, one for each question: what fences the texts and marks the verdict.

Whoever wrote a completion did so before the question was asked and does not know the secret, so no completion can hold
the question's nonce. It is derived and not drawn, so that a run that is resumed asks the very same questions and finds
them in the cache. This file knows bytes; it does not know where a secret is kept.
"""

from __future__ import annotations

import hashlib
import hmac

DIGITS = 16
"""Hexadecimal digits of a nonce: 64 bits, far more than anyone can try."""


def nonce_of(secret: bytes, *texts: str) -> str:
    """The nonce of a question: HMAC-SHA256 of its texts under a secret.

    Args:
        secret: What only the run that asks knows; see :attr:`~rewardlab.judge.cache.ReplyCache.secret`.
        texts: All that makes the question another one, in the order shown. Lengths are counted in, so ``("ab", "c")``
            and ``("a", "bc")`` differ.

    Returns:
        16 hexadecimal digits.

    Raises:
        ValueError: the secret is empty, so that anyone could compute the nonce.
    """
    if not secret:
        raise ValueError("a nonce needs a secret that is not empty")
    digest = hmac.new(secret, digestmod=hashlib.sha256)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()[:DIGITS]
