"""Run several commands in one process, which loads torch once, and write down how each ended.

    python commands_in_turn.py TASK

TASK is a JSON file: ``commands`` {name: arguments}, ``logs`` (a folder that can be written to), ``broken`` (which of
the standard streams, 1 or 2, is a pipe that nobody reads). Gives logs/ended.json: {name: {status, out, err}}, where the
status of an exception that escaped is "raised" and err its traceback.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def run_one(name: str, arguments: list[str], logs: Path, broken: list[int]) -> dict[str, Any]:
    """One command, with its standard streams in files or broken."""
    from rewardlab.cli.main import main

    kept = {number: os.dup(number) for number in (1, 2)}
    files = {number: logs / f"{name.replace(' ', '-')}.{number}" for number in (1, 2)}
    for number, file in files.items():
        if number in broken:
            reader, target = os.pipe()
            os.close(reader)
        else:
            target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, number)
        os.close(target)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    raised = ""
    try:
        status: int | str = main(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        status, raised = "raised", "".join(traceback.format_exception(error))
    finally:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        for number, was in kept.items():
            os.dup2(was, number)
            os.close(was)
    out, err = (file.read_text(encoding="utf-8", errors="replace") if file.exists() else "" for file in files.values())
    return {"status": status, "out": out, "err": err + raised}


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(task["logs"])
    ended = {name: run_one(name, words, folder, task["broken"]) for name, words in task["commands"].items()}
    (folder / "ended.json").write_text(json.dumps(ended))
