from __future__ import annotations

import hashlib
import json
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rewardlab.errors import DataError
from rewardlab.judge.cache import ReplyCache
from rewardlab.judge.chat import ChatReply, TokenLogprobs

REPLY = ChatReply(
    text="fine é \ud800",
    finish="stop",
    model="m-1",
    prompt_tokens=7,
    logprobs=(TokenLogprobs("A", -0.125, (("A", -0.125), ("B", -9999.0))),),
)


def test_a_reply_comes_back_exactly_but_free(tmp_path):
    with ReplyCache(tmp_path / "cache.sqlite") as cache:
        assert cache.get("k") is None
        cache.put("k", REPLY)
        assert len(cache) == 1
    with ReplyCache(tmp_path / "cache.sqlite") as cache:
        kept = cache.get("k")
    assert kept is not None
    assert kept.cached
    assert (kept.text, kept.model, kept.prompt_tokens, kept.completion_tokens) == (REPLY.text, "m-1", 7, None)
    assert kept.logprobs == REPLY.logprobs


def test_the_first_reply_of_a_question_stays(tmp_path):
    with ReplyCache(tmp_path / "c") as one, ReplyCache(tmp_path / "c") as other:
        one.put("k", ChatReply("first"))
        other.put("k", ChatReply("second"))
        assert [cache.get("k").text for cache in (one, other)] == ["first", "first"]


@pytest.mark.parametrize(
    "damage", ["reply = 'x'", "reply = replace(reply, 'fine', 'evil')", "digest = ''", "reply = x'00'"]
)
def test_a_row_that_is_damaged_is_asked_again(tmp_path, damage):
    path = tmp_path / "c"
    with ReplyCache(path) as cache:
        cache.put("k", ChatReply("fine"))
    with sqlite3.connect(path) as database:
        database.execute(f"UPDATE replies SET {damage}")
    database.close()
    with ReplyCache(path) as cache:
        assert cache.get("k") is None
        assert cache.unreadable == 1
        cache.put("k", ChatReply("again"))
        assert cache.get("k").text == "again"


@pytest.mark.parametrize(
    "change",
    [
        {"text": 5},
        {"finish": "odd"},
        {"finish": []},
        {"prompt_tokens": "7"},
        {"logprobs": 3},
        {"logprobs": [["A", None, []]]},
        {"logprobs": [["A", -0.1]]},
        {"refusal": None},
    ],
)
def test_a_record_of_another_shape_is_asked_again(tmp_path, change):
    """Its digest is right: somebody, or another version, wrote it so."""
    path = tmp_path / "c"
    with ReplyCache(path) as cache:
        cache.put("k", REPLY)
        assert cache.get("k") is not None
        (text,) = cache._database.execute("SELECT reply FROM replies").fetchone()
        text = json.dumps({**json.loads(text), **change})
        row = (text, hashlib.sha256(text.encode()).hexdigest())
        cache._database.execute("UPDATE replies SET reply = ?, digest = ?", row)
        assert (cache.get("k"), cache.unreadable) == (None, 1)


def test_the_secret_is_made_once_and_is_its_owners(tmp_path):
    with ReplyCache(tmp_path / "a") as cache, ReplyCache(tmp_path / "b") as other:
        assert len(cache.secret) == 32
        assert cache.secret != other.secret
    with ReplyCache(tmp_path / "a") as again:
        assert again.secret == cache.secret
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) & 0o077 == 0


def test_what_is_known_is_remembered(tmp_path):
    with ReplyCache(tmp_path / "c") as cache:
        assert cache.recall("x") is None
        cache.remember("x", {"a": 1})
        cache.remember("x", {"a": 2})
        assert cache.recall("x") == {"a": 2}
        cache._database.execute("UPDATE known SET value = 'broken' WHERE name = 'x'")
        assert cache.recall("x") is None


def test_two_processes_write_at_once_and_agree_on_the_secret(tmp_path):
    code = (
        "import sys; from rewardlab.judge.cache import ReplyCache; from rewardlab.judge.chat import ChatReply\n"
        "with ReplyCache(sys.argv[1]) as cache:\n"
        "    for i in range(200): cache.put(f'{sys.argv[2]}{i}', ChatReply('x' * 50))\n"
        "    print(cache.secret.hex())"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "c"), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    secrets = [run.communicate(timeout=60)[0] for run in runs]
    assert secrets[0] == secrets[1] != ""
    with ReplyCache(tmp_path / "c") as cache:
        assert len(cache) == 400


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path: Path):
    text = tmp_path / "notes.txt"
    text.write_text("these are my notes, more than a header of sixteen bytes long" * 20)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()
    newer = tmp_path / "newer"
    ReplyCache(newer).close()
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    for path, words in ((text, "no cache of judge replies"), (other, "no cache"), (newer, "version 9")):
        before = path.read_bytes()
        with pytest.raises(DataError, match=words) as told:
            ReplyCache(path)
        assert told.value.hint
        assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(DataError, match="cannot be opened"):
        ReplyCache(tmp_path / "no such folder" / "c")
    with pytest.raises(DataError, match="cannot be opened"):
        ReplyCache(tmp_path)


def test_a_closed_cache_says_so(tmp_path):
    cache = ReplyCache(tmp_path / "c")
    cache.close()
    cache.close()
    with pytest.raises(DataError, match="closed"):
        cache.get("k")
