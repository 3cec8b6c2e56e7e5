"""Any bytes as a YAML file of ours give what they say, or a ConfigError: no other exception, in bounded work."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.mutations import changed_value, damaged, json_text, nested

from rewardlab.config import build
from rewardlab.errors import ConfigError
from rewardlab.judge.prompts import load_prompt
from rewardlab.monitoring.thresholds import Thresholds, load_thresholds
from rewardlab.rewards.configuration import transforms_from
from rewardlab.rewards.entries import Known
from rewardlab.training.recipe import TrainRecipe

RECIPE = b"""model: base
data: [a.jsonl, b.jsonl]
output: out
mode: lora
lora: {rank: 8}
learning_rate: 1e-5
num_train_epochs: 2
lr_scheduler_kwargs: {a: 1}
"""
THRESHOLDS = b"false_alarm_rate: 0.01\nhorizon: 100\naccuracy_drops: [0.02, 0.1]\ncanary_tolerance: 1e-5\n"
CHAIN = b"transforms:\n  - delta\n  - clip: {limit: 10}\n  - running\n"
PROMPT = b"""name: mine
mode: pairwise
user: "{prompt} {completion_a} {completion_b} {verdict_instruction}"
"""

READERS: dict[str, tuple[bytes, Callable[[Path], Any]]] = {
    "recipe": (RECIPE, lambda path: build(TrainRecipe, recipe=path)),
    "thresholds": (THRESHOLDS, load_thresholds),
    "chain": (CHAIN, lambda path: transforms_from(path, Known())),
    "prompt": (PROMPT, lambda path: load_prompt(path, "pairwise").sha256),
}

LAUGHS = b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 30))
REFUSED = {
    "a billion laughs": LAUGHS,
    "an alias inside itself": b"lora: &a {rank: *a}",
    "merged into itself": b"<<: &x {<<: *x}",
    "a tag that runs code": b"model: !!python/object/apply:os.system [exit]",
    "a tag that is broken": b"horizon: !!int ''",
    "a date": b"horizon: !!timestamp x",
    "deep": nested(100_000),
    "deep mappings": nested(100_000, 1),
    "deep blocks": b"- " * 100_000,
    "deep keys": b"? " * 5_000,
    "many keys": b"".join(b"key%d: 1\n" % i for i in range(100_000)),
    "a large file": b"#" * ((1 << 20) + 1),
    "a long integer": b"horizon: " + b"9" * 5000,
    "beyond floats": b"false_alarm_rate: 1" + b"0" * 400,
    "not a character": b'model: "\\U0011FFFF"',
    "far from a character": b'model: "\\UFFFFFFFF"',
    "half a character": b'model: "\\ud800"',
    "nul": b'model: "\\0"',
    "latin-1": b"model: \xe9",
    "two documents": b"--- {}\n--- {}\n",
    "a list as key": b"? [a]\n: 1",
}


@pytest.mark.parametrize("content", REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("reader", ["recipe", "thresholds"])
def test_what_no_file_may_say_is_refused(tmp_path: Path, reader: str, content: bytes) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        READERS[reader][1](path)
    assert str(path) in caught.value.message
    assert len(caught.value.message) < 1000 or "required" in caught.value.message


def test_aliases_and_merged_keys_are_what_they_repeat(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("accuracy_drops: &a [0.1, 0.2]\ngap_steps: *a\n<<: {horizon: 7}\n", encoding="utf-8")
    assert load_thresholds(path) == Thresholds(accuracy_drops=(0.1, 0.2), gap_steps=(0.1, 0.2), horizon=7)


def looked_at(reader: str, path: Path, seed: int) -> None:
    draw = random.Random(seed)
    base, read = READERS[reader]
    made = {
        0: lambda: damaged(base, draw),
        1: lambda: json_text(changed_value(yaml.safe_load(base), draw), draw),
        2: lambda: damaged(draw.choice(list(REFUSED.values()))[:5_000], draw),
    }[draw.randrange(3)]()
    path.write_bytes(made)
    with suppress(ConfigError):
        read(path)


@pytest.mark.parametrize("reader", READERS)
def test_a_broken_file_is_told(tmp_path_factory: pytest.TempPathFactory, reader: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "f.yaml"

    @settings(max_examples=15)
    @given(st.integers(0, 10**9))
    def check(seed: int) -> None:
        looked_at(reader, path, seed)

    path.write_bytes(READERS[reader][0])
    READERS[reader][1](path)  # whole, it is read
    check()


@pytest.mark.slow
@pytest.mark.parametrize("reader", READERS)
def test_many_broken_files_are_told(tmp_path: Path, reader: str) -> None:
    for seed in range(120):
        looked_at(reader, tmp_path / "f.yaml", 10**9 + seed)
