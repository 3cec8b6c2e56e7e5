"""Every recipe runs as a user would run it: trained, loaded again, verified, scored; and every objective has one.

A recipe's data are made here: a few rows of the shape that its own comment names.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rewardlab.cli.main import main
from rewardlab.objectives import OBJECTIVES, parameters_of
from rewardlab.scoring.scorer import Scorer
from rewardlab.training.arguments import RewardArguments

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs" / "objectives.md"
MEMORY = ROOT / "docs" / "memory.md"
LARGE = sorted((ROOT / "recipes").glob("llama_7b_*.yaml"))  # of 8 GPUs: planned here, not run
RECIPES = sorted(set((ROOT / "recipes").glob("*.yaml")) - set(LARGE))  # recipes/distributed are accelerate's
QUICK = ["max_steps=2", "max_length=160", "disable_tqdm=true", "learning_rate=1e-3", "per_device_train_batch_size=4"]

Row = dict[str, Any]


def _answers(number: int) -> list[str]:
    return [f"The answer is {number}.", f"It is {number} and the sea.", "I do not know."]


def _pair(number: int) -> Row:
    best, second, _ = _answers(number)
    return {"prompt": f"What is {number}?", "chosen": best, "rejected": second, "p_chosen": 0.8}


def _tie_or_pair(number: int) -> Row:
    best, second, _ = _answers(number)
    return {"prompt": f"What is {number}?", "a": best, "b": second} if number % 3 == 0 else _pair(number)


def _pair_with_strength(number: int) -> Row:
    return _pair(number) | {"strength": ("slightly", "better", "significantly")[number % 3]}


def _ranking(number: int) -> Row:
    return {"prompt": f"What is {number}?", "completions": _answers(number), "ranks": [1, 2 - number % 2, 3]}


def _top_k(number: int) -> Row:
    return {"prompt": f"What is {number}?", "completions": _answers(number), "ranks": [1, None, None]}


def _rated(number: int) -> Row:
    ratings = {"helpfulness": number % 5, "correctness": (number + 1) % 5, "coherence": 4, "verbosity": 1}
    return {"prompt": f"What is {number}?", "response": _answers(number)[number % 3], **ratings}


def _checked(number: int) -> Row:
    return {"prompt": f"What is {number}?", "completion": _answers(number)[number % 3], "label": number % 3 == 0}


def _judged(number: int) -> Row:
    steps = [f"First, {number}.", "Then, the sea.", "So, 42."]
    return {"prompt": f"What is {number}?", "completions": steps, "labels": [1, 0, -1]}


ROWS: dict[str, Callable[[int], Row]] = {
    "bradley_terry": _pair,
    "grouped_pairs": _ranking,
    "davidson": _tie_or_pair,
    "scaled_bradley_terry": _pair_with_strength,
    "plackett_luce": _top_k,
    "regression": _rated,
    "outcome": _checked,
    "process": _judged,
}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains_a_model_that_verifies_and_scores(
    recipe: Path, base_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = yaml.safe_load(recipe.read_text(encoding="utf-8"))["objective"]
    data, folder = tmp_path / "rows.jsonl", tmp_path / "rm"
    data.write_text("".join(json.dumps(ROWS[objective](number)) + "\n" for number in range(30)), encoding="utf-8")
    arguments = ["--model", str(base_model), "--data", str(data), "--output", str(folder), "--dtype", "float32"]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    assert main(["train", "--config", str(recipe), *arguments, *settings]) == 0
    assert main(["verify", str(folder)]) == 0, capsys.readouterr().err

    contract = json.loads((folder / "reward_contract.json").read_text(encoding="utf-8"))
    assert contract["objective"]["name"] == objective
    assert contract["held_out_metrics"]
    scorer = Scorer.from_pretrained(folder)
    assert scorer.read_out.kind == OBJECTIVES[objective].kind
    scores = scorer.score(["What is 5?"] * 3, _answers(5))
    assert all(map(math.isfinite, scores))
    assert len(set(scores)) == 3, "other completions have other scores"


def test_every_objective_has_a_recipe_of_its_name() -> None:
    named = {recipe.stem: yaml.safe_load(recipe.read_text(encoding="utf-8"))["objective"] for recipe in RECIPES}
    assert named == {name: name for name in OBJECTIVES}


def test_every_objective_has_a_section_in_the_docs_that_names_its_recipe() -> None:
    assert list(_sections()) == list(OBJECTIVES)
    page = DOCS.read_text(encoding="utf-8")
    assert [name for name in OBJECTIVES if f"(../recipes/{name}.yaml)" not in page] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_states_its_objective_s_arguments_and_the_docs_name_them(recipe: Path) -> None:
    """An argument that has no effect in a recipe would be copied for years."""
    fields = set(RewardArguments.__dataclass_fields__)
    stated = yaml.safe_load(recipe.read_text(encoding="utf-8")).keys() & fields - {"objective"}
    row = re.search(r"^\| arguments \| (.+) \|$", _sections()[recipe.stem], re.MULTILINE)
    assert row is not None
    named = set(re.findall(r"`(\w+)`", row[1])) & fields
    assert fields.intersection(parameters_of(recipe.stem)) <= stated <= named


LLAMA_2_7B = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "pad_token_id": 0,
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LARGE, ids=lambda path: path.stem)
def test_a_recipe_for_8_gpus_fits_them_by_the_plan_that_the_docs_show(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's own numbers, so that neither recipe, formula nor page can move alone."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_2_7B), encoding="utf-8")
    told = re.search(r"--launcher (\w+) --processes 8", recipe.read_text(encoding="utf-8"))
    assert told is not None
    asked = ["--plan", "--json", "--processes", "8", "--memory", "80GB"]
    assert main(["train", "--config", str(recipe), "--model", str(tmp_path), *asked]) == 0
    record = json.loads(capsys.readouterr().out)
    device = record["devices"][told[1]]
    assert device["total"] < 0.8 * record["memory"], "a plan may be off by a fifth"
    (row,) = re.findall(rf"^\| {recipe.stem} .*$", MEMORY.read_text(encoding="utf-8"), re.MULTILINE)
    assert [cell.strip() for cell in row.strip("|").split("|")][1:] == [
        told[1],
        f"{record['tokens_per_batch']:,}",
        f"{sum(device['parts'].values()) / 1e9:.1f}",
        f"{device['activations'] / 1e9:.1f}",
        f"{device['total'] / 1e9:.1f}",
        f"{device['largest_tokens_per_batch']['with_checkpointing']:,}",
    ]


def _sections() -> dict[str, str]:
    """Objective -> its section of the docs."""
    parts = re.split(r"^## (.+)$", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        title.strip("`"): text for title, text in zip(parts[::2], parts[1::2], strict=True) if title.startswith("`")
    }
