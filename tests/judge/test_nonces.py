"""Nonces: the same for the same question, another for any other, and none without a secret."""

import hashlib
import hmac

import pytest

from rewardlab.judge.nonces import nonce_of


def test_a_nonce_is_the_hmac_of_length_prefixed_texts():
    """By hand: 8 bytes of length, then the UTF-8 text, for each text; the first 16 digits of HMAC-SHA256."""
    content = b"".join(len(text).to_bytes(8, "big") + text for text in (b"ab", "ü".encode()))
    assert nonce_of(b"key", "ab", "ü") == hmac.digest(b"key", content, hashlib.sha256).hex()[:16]


def test_each_question_has_its_own():
    nonces = [
        nonce_of(b"k", "a", "b"),
        nonce_of(b"k", "b", "a"),
        nonce_of(b"k", "ab", ""),
        nonce_of(b"other", "a", "b"),
    ]
    assert len(set(nonces)) == 4
    assert nonces[0] == nonce_of(b"k", "a", "b")


def test_half_a_character_has_one_too():
    assert len(nonce_of(b"k", "\ud800")) == 16


def test_an_empty_secret_is_refused():
    with pytest.raises(ValueError, match="a secret that is not empty"):
        nonce_of(b"", "a")
