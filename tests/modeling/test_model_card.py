"""The model card: its code gives the score, its numbers are the contract's, and nothing private is in it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import ModelCard

from rewardlab.calibration.reference import reference_statistics
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.contract import Contract, HeadRecord, Probe, load_contract
from rewardlab.modeling.model_card import MARKER, model_card, write_model_card
from rewardlab.modeling.preparing import prepare_for_training
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup, ReadOut, Step

STEPS = ReadOut("step", "min", 3, separator="<|step|>")


def contract_of(**changes: Any) -> Contract:
    """A contract that knows as little as one can."""
    least = Contract(
        architecture="Qwen3ForSequenceClassification",
        objective={"name": "bradley_terry", "center_rewards_coefficient": 0.01},
        read_out="last token that is not padding",
        template_sha256="ab" * 32,
        template_origin="tokenizer",
        template_changes=[],
        begin_token=None,
        end_token="<|im_end|>",
        pad_token_id=0,
        max_length=1024,
        truncation="never the completion",
        dtype="float32",
        tolerances={"float32": 1e-5},
        reference=None,
        temperature=None,
        held_out_metrics={},
        data={},
        training={},
        versions={},
    )
    return dataclasses.replace(least, **changes)


def interval(value: float, low: float | None, high: float | None) -> dict[str, float | None]:
    return {"value": value, "low": low, "high": high}


PAIRS = {
    "num_pairs": 1500,
    "num_prompts": 1400,
    "accuracy": interval(0.75, 0.73, 0.77),
    "longer_wins": interval(0.5, 0.48, 0.52),
    "shorter_wins": interval(0.49, None, None),
    "log_loss": interval(0.504, 0.48, 0.53),
    "length_controlled": {"matched_accuracy": None, "balanced_accuracy": interval(0.7, 0.6, 0.8)},
    "above_length_baselines": True,
    "subsets": {"my secret subset": {"num_pairs": 3}},
    "bootstrap": {"unit": "prompt", "confidence": 0.9, "resamples": 2000, "seed": 0},
}


def run_code(card: str, index: int) -> dict[str, Any]:
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(blocks[index], names)
    return names


def save(folder: Path, base: Path, read_out: ReadOut) -> Contract:
    prepared = prepare_for_training(base, seed=0, read_out=read_out)
    save_reward_model(
        folder,
        prepared.model,
        prepared.tokenizer,
        prepared.template,
        max_length=64,
        provenance=Provenance({"name": "any"}),
        read_out=read_out,
    )
    contract = load_contract(folder)
    assert contract is not None
    return contract


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_the_code_gives_the_score(base: str, base_model: Path, minilm_path: Path, tmp_path: Path) -> None:
    contract = save(tmp_path / "rm", base_model if base == "decoder" else minilm_path, ReadOut())
    card = model_card(contract, str(tmp_path / "rm"))
    expected = run_code(card, 0)["scorer"].score(["What is 2 + 2?"], ["4"])[0]
    assert run_code(card, 1)["score"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("neutral", [False, True])
def test_the_code_gives_the_step_scores(neutral: bool, base_model: Path, tmp_path: Path) -> None:
    read_out = dataclasses.replace(STEPS, neutral_is_correct=neutral)
    contract = save(tmp_path / "prm", base_model, read_out)
    found = run_code(model_card(contract, str(tmp_path / "prm")), 1)
    group = PromptGroup("What is 2 + 2?", ("",), steps=([Step(text) for text in found["steps"]],))
    expected = Scorer.from_pretrained(tmp_path / "prm").step_scores([group])[0][0]
    assert found["step_scores"] == pytest.approx(expected, abs=1e-5)
    assert len(expected) == 2


def test_an_outcome_model_says_how_tokens_become_a_score() -> None:
    card = model_card(contract_of(head=ReadOut("token", "product")), "rm")
    assert "logit of the product of P(correct) over the answer's tokens" in card
    assert ModelCard(card).data.pipeline_tag == "token-classification"
    assert "vllm serve" not in card


def test_saving_writes_it(reward_model: Path) -> None:
    """The whole path: a trained model has a card that the hub's own reader understands."""
    contract = load_contract(reward_model)
    assert contract is not None
    card = ModelCard.load(reward_model / "README.md")
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["reward-model", "rewardlab"]
    assert card.data.get("license") is None
    accuracy = contract.held_out_metrics["accuracy"]
    assert {r.metric_type: r.metric_value for r in card.data.eval_results}["accuracy"] == accuracy["value"]
    assert f"| {accuracy['value']:.4f} | {accuracy['low']:.4f} to {accuracy['high']:.4f} |" in card.text
    assert "baseline: always the longer" in card.text
    data = contract.data["train"]
    assert f"{data['num_groups']} rows, SHA-256 `{data['sha256']}`" in card.text
    assert str(reward_model.parent) not in card.content
    assert contract.training["base_model"] not in card.content


def test_the_least_contract_has_a_card() -> None:
    card = ModelCard(model_card(contract_of(), "rm"))
    assert card.data.eval_results is None
    assert card.data.base_model is None
    assert "None were measured" in card.text
    assert "No temperature is fitted" in card.text
    assert "No reference statistics are known" in card.text
    assert "None" not in re.sub("None were measured", "", card.text)


def test_the_numbers_are_the_contracts() -> None:
    reference = dataclasses.replace(reference_statistics([float(i) for i in range(101)], "held-out"), sha256="cd" * 32)
    contract = contract_of(
        held_out_metrics=PAIRS,
        reference=reference,
        temperature=1.5,
        calibration={
            "temperature": interval(1.5, 1.25, None),
            "before": {"log_loss": 0.5, "brier": 0.2, "ece": 0.05, "ece_equal_mass": 0.06},
            "after": {"log_loss": 0.45, "brier": 0.19, "ece": 0.01, "ece_equal_mass": 0.02},
            "comparison": {"none": {}},
            "num_pairs": 1500,
            "num_prompts": 1400,
            "unit": "pair",
            "warnings": ["few prompts"],
            "data": {"num_groups": 1500, "sha256": "ef" * 32},
            "forced": True,
        },
        training={"mode": "lora", "seed": 42, "epochs": 1.0, "something": "/private"},
        data={"train": {"num_groups": 16000, "sha256": "12" * 32}, "held_out": None, "files": {}},
        versions={"rewardlab": "0.1.0"},
    )
    card = model_card(contract, "rm")
    for line in (
        "**Preferences**: 1,500 pairs, 1,400 prompts.",
        "| pairwise accuracy (a tie is not a win) | 0.7500 | 0.7300 to 0.7700 |",
        "| baseline: always the shorter | 0.4900 | - |",
        "| accuracy, lengths balanced (0.5 is length alone) | 0.7000 | 0.6000 to 0.8000 |",
        "90 % intervals are bootstrapped by prompt.",
        "Reference set (held-out, 101 scores): mean 50.0000, standard deviation 29.1548; quantiles 5 %: 5.000",
        "Temperature T = 1.5 (1.2500 to no upper bound), fitted on 1,500 pairs of 1,400 prompts",
        "| log loss | 0.5000 | 0.4500 |",
        "cross-fitted by prompt",
        "The fit was forced",
        "Note: few prompts",
        "vllm_pooler.json",
        "- **Training data**: 16,000 rows, SHA-256 `" + "12" * 32,
        "**last token**: `<|im_end|>`",
    ):
        assert line in card, line
    assert "lengths alike" not in card
    results = ModelCard(card).data.eval_results
    assert [(r.metric_type, r.metric_value) for r in results] == [("accuracy", 0.75), ("log_loss", 0.504)]


def test_what_is_not_above_length_is_said() -> None:
    metrics = {**PAIRS, "above_length_baselines": False}
    assert "Not shown to be above what length alone gives" in model_card(contract_of(held_out_metrics=metrics), "rm")
    assert "Not shown" not in model_card(contract_of(held_out_metrics=PAIRS), "rm")


def test_no_text_of_the_data_is_in_it() -> None:
    messages = [{"role": "user", "content": "a private question"}, {"role": "assistant", "content": "private"}]
    probe = Probe(messages, 1, [1, 2], 0.5)
    card = model_card(contract_of(held_out_metrics=PAIRS, probes=[probe], training={"something": "/private"}), "rm")
    assert "private" not in card
    assert "my secret subset" not in card


@pytest.mark.parametrize(
    ("given", "shown"),
    [("/srv/models/base", "base"), ("runs/rm", "rm"), (r"C:\models\base", "base"), ("./a/b/", "b")],
)
def test_of_a_path_the_last_component_is_shown(given: str, shown: str) -> None:
    """`runs/rm` looks like a hub id, but did not come from the hub."""
    for field in ("base_model", "source"):
        card = model_card(contract_of(training={field: given}), "card")
        assert f"- **Made from**: `{shown}`" in card
        assert given not in card
        assert ModelCard(card).data.base_model is None


def test_a_hub_id_is_the_base_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, name: f"cache/{repository}/{name}"
    )
    card = model_card(contract_of(training={"base_model": "Qwen/Qwen3-0.6B"}), "rm")
    assert ModelCard(card).data.base_model == "Qwen/Qwen3-0.6B"
    assert "- **Made from**: `Qwen/Qwen3-0.6B`" in card


def test_an_imported_model_says_where_it_came_from() -> None:
    reference = dataclasses.replace(reference_statistics([0.0, 2.0], "openrlhf config"), num_scores=0, quantiles={})
    contract = contract_of(
        objective={"name": "imported", "from": "openrlhf"},
        training={"source": "/srv/their-rm", "framework": "openrlhf"},
        reference=reference,
        end_token="",
        template_changes=["new lines at the end removed and </s> put there"],
    )
    card = model_card(contract, "rm")
    assert "- **Imported** from openrlhf" in card
    assert "- **Made from**: `their-rm`" in card
    assert "(openrlhf config, an unknown number of scores): mean 1.0000, standard deviation 1.0000." in card
    assert "**last token**: none in particular" in card
    assert "`new lines at the end removed and </s> put there`" in card


def test_somebodys_own_readme_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# Mine\n")
    assert not write_model_card(tmp_path, contract_of())
    assert path.read_text() == "# Mine\n"
    path.write_bytes(b"\xff\xfe not text")
    assert not write_model_card(tmp_path, contract_of())


def test_our_own_is_written_anew(tmp_path: Path) -> None:
    assert write_model_card(tmp_path, contract_of())
    first = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert MARKER in first
    assert f"# {tmp_path.name}\n" in first
    assert write_model_card(tmp_path, contract_of(max_length=77))
    assert "77 tokens" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_the_marker_hides_nothing_from_the_hub(tmp_path: Path) -> None:
    """The metadata must stand at the file's start, before the marker, or the hub reads none."""
    write_model_card(tmp_path, contract_of())
    assert (tmp_path / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name: transformers\n")


def test_heads_are_told_and_how_to_use_them() -> None:
    card = model_card(contract_of(heads=[HeadRecord(None, None, {}, [])] * 5), "my rm")
    assert "**Heads**: 5 on one trunk; the checkpoint's own head is their mean" in card
    assert "rewardlab score 'my rm' --ensemble min --data FILE --output OUT" in card
    assert "rewardlab import 'my rm' --head 0 --output ONE-HEAD" in card
    assert "--ensemble" not in model_card(contract_of(), "my rm")
