"""Damage done to each file of a real checkpoint, whichever files it has."""

from __future__ import annotations

from pathlib import Path

from rewardlab.training.checkpoints import damage_of


def require_each_byte_counts(checkpoint: Path) -> list[str]:
    """Flip a byte in each file that is there, and cut one off it; each time its name must be told.

    Returns:
        The names of the files, which are as they were.
    """
    assert damage_of(checkpoint) is None
    names = sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())
    for name in names:
        content = (checkpoint / name).read_bytes()
        at = len(content) // 3
        flipped = content[:at] + bytes([content[at] ^ 0x20]) + content[at + 1 :]
        for damaged in (flipped, content[:-1]):
            (checkpoint / name).write_bytes(damaged)
            assert name in (damage_of(checkpoint) or ""), name
        (checkpoint / name).write_bytes(content)
    assert damage_of(checkpoint) is None
    return names
