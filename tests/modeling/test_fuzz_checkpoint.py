"""Any bytes in a file of a checkpoint give a score or a refusal (a RewardLabError): no other exception, no wait."""

from __future__ import annotations

import json
import os
import random
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from tests.mutations import changed_value, damaged, json_text, nested

from rewardlab.errors import CheckpointError, RewardLabError
from rewardlab.modeling.contract import FILE_NAME, load_contract
from rewardlab.modeling.loading import load_config, load_tokenizer, require_safetensors
from rewardlab.scoring.scorer import Scorer

FILES = (FILE_NAME, "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors")
READERS = {
    FILE_NAME: load_contract,
    "config.json": load_config,
    "tokenizer.json": load_tokenizer,
    "tokenizer_config.json": load_tokenizer,
    "model.safetensors": require_safetensors,
}


@pytest.fixture
def folder(reward_model: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(reward_model, tmp_path / "rm", ignore=shutil.ignore_patterns("training")))


def broken(content: bytes, name: str, draw: random.Random) -> bytes:
    if not name.endswith(".json") or draw.random() < 0.3:
        return damaged(content, draw)
    if draw.random() < 0.1:
        return draw.choice((nested(100_000), nested(900), b"", b"[]", b"null", b"{}"))
    return json_text(changed_value(json.loads(content), draw), draw)


@pytest.mark.filterwarnings("ignore")  # transformers warns of what it reads; what is wrong is told by our error
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_told_by_its_reader(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    READERS[name](folder)
    for seed in range(12):
        (folder / name).write_bytes(broken(content, name, random.Random(f"{name} {seed}")))
        with suppress(RewardLabError):
            READERS[name](folder)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_gives_a_score_or_a_refusal(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for seed in range(8):
        (folder / name).write_bytes(broken(content, name, random.Random(f"whole {name} {seed}")))
        with suppress(RewardLabError):
            (score,) = Scorer.from_pretrained(folder).score(["hello"], ["the sea"])
            assert score == score


@pytest.mark.parametrize("name", ["config.json", FILE_NAME, "tokenizer.json", "model.safetensors"])
def test_a_pipe_is_refused_and_never_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="it is a pipe"):
        READERS[name](folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "absent.safetensors", "", None, 5, ["a"]])
def test_an_index_names_files_of_its_folder_alone(folder: Path, name: object) -> None:
    index = {"metadata": {}, "weight_map": {"score.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CheckpointError, match="no weight files of this folder"):
        require_safetensors(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_length", "128", "max_length must be an integer, got the text '128'"),
        ("max_length", 0, "max_length must be at least 1"),
        ("temperature", -1, "temperature must be above 0"),
        ("probes", [{}], r"no key probes\[0\].messages"),
        ("reference", {"source": "x", "num_scores": 1, "mean": 0, "std": -1, "quantiles": {}}, "at least 0"),
        ("calibration", {"unit": "x"}, "calibration.unit must be one of"),
        ("unknown", 1, "unknown key unknown"),
    ],
)
def test_a_contract_says_what_is_wrong_in_it(folder: Path, key: str, value: object, message: str) -> None:
    path = folder / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_contract(folder)


def test_ids_that_the_model_has_no_embedding_for_are_refused(folder: Path) -> None:
    path = folder / FILE_NAME
    record = json.loads(path.read_text(encoding="utf-8"))
    record["probes"][0]["input_ids"][0] = 10**30
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="embeddings for"):
        Scorer.from_pretrained(folder)
