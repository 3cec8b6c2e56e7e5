"""Replies kept on disk by the hash of what was asked: the same question gets the same reply, and costs once.

The file is SQLite (WAL), safe for several processes. It holds answers, what is known of endpoints, and a secret;
neither questions, addresses nor keys. This file knows records; it asks nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

from rewardlab.errors import DataError
from rewardlab.judge.chat import ChatReply, Finish, TokenLogprobs

_APPLICATION = 0x726C6A63  # "rljc", in the header of the file
_VERSION = 1
_BUSY_S = 30.0

_TABLES = (
    "CREATE TABLE replies"
    " (key TEXT PRIMARY KEY, reply TEXT NOT NULL, digest TEXT NOT NULL, created REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE known (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
)


class ReplyCache:
    """A file of replies; a context manager.

    Args:
        path: Made where it is not there; its folder must be.

    Attributes:
        path: As given.
        secret: Random, made once with the file: from it come delimiters that nobody can guess who has not the file.
        unreadable: Rows so far that no longer held what was written; each is asked again.

    Raises:
        DataError: It cannot be opened, or is no cache of this version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.unreadable = 0
        self._lock = threading.Lock()  # it may be made in one thread and used by a loop in another
        with self._told():
            # The secret in it is for its owner alone; SQLite gives its side files the same rights.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with self._told():
                self._prepare()
                self.secret = self._keep_secret()
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> ReplyCache:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def __len__(self) -> int:
        """How many replies it holds."""
        with self._told(), closing(self._database.execute("SELECT COUNT(*) FROM replies")) as rows:
            return int(rows.fetchone()[0])

    def get(self, key: str) -> ChatReply | None:
        """The reply to what has this key, as it was given, ``cached`` and free; None where there is none."""
        with self._told():
            row = self._database.execute("SELECT reply, digest FROM replies WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            reply = _reply_of(*row)
            if reply is None:
                self.unreadable += 1
                self._database.execute("DELETE FROM replies WHERE key = ?", (key,))
        return reply

    def put(self, key: str, reply: ChatReply) -> None:
        """Keep a reply; the first one of a key stays."""
        text = _text_of(reply)
        row = (key, text, _digest(text), time.time())
        with self._told():
            self._database.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", row)

    def recall(self, name: str) -> dict[str, Any] | None:
        """What was remembered under a name; None where nothing readable was."""
        with self._told():
            row = self._database.execute("SELECT value FROM known WHERE name = ?", (name,)).fetchone()
        try:
            value = json.loads(row[0]) if row else None
        except (ValueError, TypeError):
            return None
        return value if isinstance(value, dict) else None

    def remember(self, name: str, value: dict[str, Any]) -> None:
        """Keep JSON values under a name, in place of what was there."""
        with self._told():
            self._database.execute("INSERT OR REPLACE INTO known VALUES (?, ?)", (name, json.dumps(value)))

    def close(self) -> None:
        """Close the file; it may be closed twice."""
        with self._lock:
            self._database.close()

    def _prepare(self) -> None:
        self._database.execute("BEGIN IMMEDIATE")  # so that two processes do not make it at once
        application, version = self._pragma("application_id"), self._pragma("user_version")
        if application == 0 and not self._tables():
            for statement in _TABLES:
                self._database.execute(statement)
            self._database.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._database.execute(f"PRAGMA user_version = {_VERSION}")
        elif application != _APPLICATION:
            raise DataError(f"{self.path} is a database, but no cache of judge replies", hint="name another file")
        elif version != _VERSION:
            raise DataError(
                f"{self.path} is a cache of version {version}, and this rewardlab reads version {_VERSION}",
                hint="name another file, or delete it: what it holds is asked again",
            )
        self._database.execute("COMMIT")
        self._switch_to_wal()
        self._database.execute("PRAGMA synchronous = NORMAL")  # a power cut may cost the last replies, not the file

    def _switch_to_wal(self) -> None:
        """SQLite does not wait where two programs switch a new file at once, so this does."""
        until = time.monotonic() + _BUSY_S
        while True:
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    def _tables(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0])

    def _keep_secret(self) -> bytes:
        made = json.dumps({"hex": secrets.token_hex(32)})
        self._database.execute("INSERT OR IGNORE INTO known VALUES ('secret', ?)", (made,))  # two at once agree
        row = self._database.execute("SELECT value FROM known WHERE name = 'secret'").fetchone()
        try:
            return bytes.fromhex(json.loads(row[0])["hex"])
        except (ValueError, TypeError, KeyError):
            raise DataError(f"{self.path}: its secret is damaged", hint="delete the file: it is made anew") from None

    @contextmanager
    def _told(self) -> Iterator[None]:
        """One user of the connection at a time, and what goes wrong in our words."""
        with self._lock:
            try:
                yield
            except sqlite3.OperationalError as error:
                raise DataError(
                    f"{self.path}: the cache of judge replies cannot be used: {error}",
                    hint="is there room on the disk, and may it be written?",
                ) from error
            except sqlite3.ProgrammingError as error:
                raise DataError(f"{self.path}: the cache of judge replies is closed: {error}") from error
            except sqlite3.DatabaseError as error:
                raise DataError(
                    f"{self.path} is no cache of judge replies, or it is damaged: {error}",
                    hint="name another file, or delete it: what it holds is asked again",
                ) from error
            except OSError as error:
                raise DataError(
                    f"{self.path}: the cache of judge replies cannot be opened: {error.strerror}",
                    hint="its folder must be there and be writable",
                ) from error


def _text_of(reply: ChatReply) -> str:
    found = {
        "text": reply.text,
        "finish": reply.finish,
        "refusal": reply.refusal,
        "model": reply.model,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "logprobs": [[one.token, one.logprob, one.top] for one in reply.logprobs],
    }
    return json.dumps(found, allow_nan=False)


def _reply_of(text: object, digest: object) -> ChatReply | None:
    """The reply as it was written; None where the row does not hold it any more."""
    if not isinstance(text, str) or _digest(text) != digest:
        return None
    try:
        match json.loads(text):
            case {
                "text": str(words),
                "finish": finish,
                "refusal": str(refusal),
                "model": str(model),
                "prompt_tokens": int() | None as prompt_tokens,
                "completion_tokens": int() | None as completion_tokens,
                "logprobs": list(logprobs),
            } if finish in get_args(Finish):
                return ChatReply(
                    words,
                    finish,
                    refusal,
                    model,
                    prompt_tokens,
                    completion_tokens,
                    tuple(_token_of(*one) for one in logprobs),
                    cached=True,
                )
    except (ValueError, TypeError, RecursionError):
        pass
    return None


def _token_of(token: str, logprob: float, top: list[tuple[str, float]]) -> TokenLogprobs:
    return TokenLogprobs(token, float(logprob), tuple((other, float(its)) for other, its in top))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
