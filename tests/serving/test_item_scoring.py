"""Results of items: the scores are Scorer.score's and plain transformers'; failures are an item's own."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.serving.item_scoring import ItemScorer, _activation, _contract_sha256
from rewardlab.serving.items import Continued, Conversation, Ids, Item, ItemRefusal, ItemScore, Rendered, Result
from rewardlab.types import PromptGroup, Step

PROMPT = "Write about the sea."
COMPLETIONS = ["the sea and the wind", "a long poem about the sea and the wind and Paris", "x", ""]


@pytest.fixture
def item_scorer(scorer: Scorer) -> ItemScorer:
    return ItemScorer(scorer, name="rm", path="runs/rm")


def score_of(result: Result) -> float:
    assert isinstance(result, ItemScore), result
    return result.score


def conversations() -> list[Item]:
    return [Conversation(PROMPT, completion) for completion in COMPLETIONS]


# -- scores -----------------------------------------------------------------------------------------------------------


def test_scores_are_plain_transformers_scores(item_scorer: ItemScorer, reward_model: Path) -> None:
    """Chat template, forward, logit; the same conversation as messages, as rendered text, as ids, and continued."""
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    for completion in COMPLETIONS:
        messages = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": completion}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).logits[0, 0].item()
        asked = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        items: list[Item] = [
            Conversation(PROMPT, completion),
            Conversation((messages[0],), (messages[1],)),
            Rendered(tokenizer.apply_chat_template(messages, tokenize=False).removeprefix("<bos>")),
            Continued(asked, completion),
            Continued(PROMPT, completion),
            Ids(tuple(ids)),
        ]
        results, _ = item_scorer.score(items)
        assert [score_of(result) for result in results] == pytest.approx([expected] * len(items), abs=1e-5)
        assert {result.num_tokens for result in results if isinstance(result, ItemScore)} == {len(ids)}


def test_scores_are_the_scorer_s(item_scorer: ItemScorer, scorer: Scorer) -> None:
    results, _ = item_scorer.score(conversations())
    expected = scorer.score([PROMPT] * len(COMPLETIONS), COMPLETIONS)
    assert [score_of(result) for result in results] == pytest.approx(expected, abs=1e-5)
    assert item_scorer.score(conversations()[::-1])[0] == pytest.approx(results[::-1])


def test_text_in_another_template_is_marked(item_scorer: ItemScorer) -> None:
    """Also one that is scored beside others, and one that begins with the begin token, which many models have."""
    own = item_scorer.info.rendered_example
    other = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nx<|im_end|>\n"
    items = [Rendered(own), Rendered(other), Rendered("<bos>" + other), Conversation("Hi", "x"), Ids((5, 6))]
    results, _ = item_scorer.score(items)
    assert [r.unlike_template for r in results if isinstance(r, ItemScore)] == [False, True, True, False, False]


def test_the_example_is_the_model_s_own_rendering(item_scorer: ItemScorer, process_scorer: Scorer) -> None:
    example = Rendered(item_scorer.info.rendered_example)
    conversation = Conversation("What is the capital of France?", "Paris.")
    (one, other), _ = item_scorer.score([example, conversation])
    assert score_of(one) == pytest.approx(score_of(other), abs=1e-6)
    steps = ItemScorer(process_scorer, name="prm", path="p")
    (one, other), _ = steps.score([Rendered(steps.info.rendered_example), conversation])
    assert isinstance(one, ItemScore)
    assert len(one.steps) == 1
    assert score_of(one) == pytest.approx(score_of(other), abs=1e-6)


def test_cut_conversations_are_marked(item_scorer: ItemScorer) -> None:
    results, _ = item_scorer.score([Conversation("the sea " * 200, "x"), Conversation("Hi", "x")])
    assert [result.truncated for result in results if isinstance(result, ItemScore)] == [True, False]


def test_steps_of_a_process_model(process_scorer: Scorer) -> None:
    item_scorer = ItemScorer(process_scorer, name="prm", path="p")
    group = PromptGroup("1 + 1?", ("",), steps=((Step("one"), Step("two"), Step("three")),))
    (result,), _ = item_scorer.score([Conversation("1 + 1?", "", steps=("one", "two", "three"))])
    assert isinstance(result, ItemScore)
    assert result.steps == pytest.approx(process_scorer.step_scores([group])[0][0], abs=1e-6)
    assert result.score == pytest.approx(process_scorer.score_groups([group])[0][0], abs=1e-5)
    assert item_scorer.info.kind == "step"


def test_disagreement_of_an_ensemble(reward_model: Path, scorer: Scorer) -> None:
    other = Scorer.from_pretrained(reward_model)
    with torch.no_grad():
        other.loaded.model.get_submodule("score").weight.mul_(2)
    ensemble = EnsembleScorer([scorer, other], "min", on="raw", names=["a", "b"])
    item_scorer = ItemScorer(ensemble, name="rm", path="a,b")
    (result,), work = item_scorer.score([Conversation(PROMPT, "x")])
    (score,) = scorer.score([PROMPT], ["x"])
    assert isinstance(result, ItemScore)
    assert result.score == pytest.approx(min(score, 2 * score), abs=1e-5)
    assert result.disagreement == pytest.approx(abs(score) / 2, abs=1e-5)  # ddof 0 of s and 2s
    assert work.tokens_given == work.tokens_computed == 2 * result.num_tokens
    info = item_scorer.info
    assert (info.architecture, info.members, info.how, info.activation) == (
        "ensemble of 2",
        ("a", "b"),
        "min",
        "identity",
    )
    assert info.members_scale == "raw"


# -- work -------------------------------------------------------------------------------------------------------------


def test_a_shared_prompt_is_computed_once(item_scorer: ItemScorer, scorer: Scorer) -> None:
    """Tokens counted by hand on the ids: each sequence whole, and the common beginning once."""
    told: list[int] = []
    _, work = item_scorer.score(conversations(), lambda: told.append(1))
    (encoded,) = [scorer.encoder.encode(PromptGroup(PROMPT, tuple(COMPLETIONS)))]
    saved = (len(COMPLETIONS) - 1) * encoded.prefix_length
    assert work.tokens_given == sum(encoded.lengths)
    assert work.tokens_computed == sum(encoded.lengths) - saved
    assert work.seconds > 0
    assert told == [1]


def test_padding_counts_as_computed(reward_model: Path) -> None:
    padded = ItemScorer(Scorer.from_pretrained(reward_model, engine="padded"), name="rm", path="p")
    results, work = padded.score([Conversation("Hi", "x"), Conversation("Hi", "x y z the sea")])
    longest = max(result.num_tokens for result in results if isinstance(result, ItemScore))
    assert work.tokens_computed == 2 * longest > work.tokens_given
    assert padded.info.layout == "padded"


def test_nothing_costs_nothing(item_scorer: ItemScorer, scorer: Scorer) -> None:
    results, work = item_scorer.score([])
    assert (results, work.tokens_given, work.tokens_computed) == ((), 0, 0)
    results, work = item_scorer.score([Rendered("")])
    assert (len(results), work.tokens_computed) == (1, 0)
    assert not scorer.loaded.model._forward_hooks


# -- failures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def faulty(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the scorer does where a sequence holds an id: raise an error, or give a number."""
    faults: dict[str, Any] = {"id": None, "error": None, "value": None, "calls": []}
    outputs = scorer.outputs

    def broken(encoded: Any, on_progress: Any = None) -> Any:
        faults["calls"].append(len(encoded))
        hit = [faults["id"] in group.sequences[0] for group in encoded]
        if any(hit) and faults["error"] is not None:
            raise faults["error"]
        found = outputs(encoded, on_progress)
        return [
            [one * faults["value"] for one in of_group] if bad and faults["value"] is not None else of_group
            for bad, of_group in zip(hit, found, strict=True)
        ]

    monkeypatch.setattr(scorer, "outputs", broken)
    return faults


@pytest.mark.parametrize("place", [0, 5, 15])
@pytest.mark.parametrize("error", [RuntimeError("secret text"), MemoryError(), torch.OutOfMemoryError("no")])
def test_one_that_raises_fails_alone(
    item_scorer: ItemScorer, faulty: dict[str, Any], place: int, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.update(id=300, error=error)
    items: list[Item] = [Ids((5, 6, 7 + number)) for number in range(16)]
    expected, _ = item_scorer.score(items)
    items[place] = Ids((5, 300, 6))
    faulty["calls"].clear()
    with caplog.at_level(logging.ERROR):
        results, _ = item_scorer.score(items)
    assert results[place] == ItemRefusal(
        "failed", f"scoring it raised {type(error).__name__}", "the server's log says where"
    )
    others = [score_of(result) for number, result in enumerate(results) if number != place]
    assert others == pytest.approx([score_of(r) for number, r in enumerate(expected) if number != place], abs=1e-5)
    assert len(faulty["calls"]) <= 1 + 2 * math.log2(16)
    assert "secret" not in caplog.text


def test_where_all_raise_all_are_told(item_scorer: ItemScorer, faulty: dict[str, Any]) -> None:
    faulty.update(id=5, error=DataError("completion 0 is one token with nothing before it"))
    results, _ = item_scorer.score([Ids((5, number)) for number in range(3)])
    assert set(results) == {ItemRefusal("invalid", "the completion is one token with nothing before it")}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_no_score(item_scorer: ItemScorer, faulty: dict[str, Any], value: float) -> None:
    faulty.update(id=300, value=value)
    first, broken, last = item_scorer.score([Ids((5, 6)), Ids((5, 300)), Ids((5, 7))])[0]
    assert isinstance(broken, ItemRefusal)
    assert broken.kind == "not_finite"
    assert isinstance(first, ItemScore)
    assert isinstance(last, ItemScore)


def test_a_member_that_gives_no_number_is_told(item_scorer: ItemScorer, faulty: dict[str, Any]) -> None:
    """As EnsembleScorer says it: an error of the whole pass."""
    faulty.update(id=300, error=CheckpointError("member b gives a score of nan", hint="h"))
    results, _ = item_scorer.score([Ids((5, 300)), Ids((5, 6))])
    assert results[0] == ItemRefusal("not_finite", "member b gives a score of nan", "h")
    assert isinstance(results[1], ItemScore)


def test_a_broken_device_is_not_an_item_s_fault(item_scorer: ItemScorer, faulty: dict[str, Any]) -> None:
    faulty.update(id=5, error=torch.AcceleratorError("device-side assert"))
    with pytest.raises(torch.AcceleratorError):
        item_scorer.score([Ids((5, 6)), Ids((5, 7))])


def test_steps_that_are_not_finite(process_scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    item_scorer = ItemScorer(process_scorer, name="prm", path="p")
    monkeypatch.setattr(process_scorer, "score_encoded_steps", lambda encoded: ([[0.5]], [[[0.5, math.nan]]]))
    (result,), _ = item_scorer.score([Conversation("Hi", "", steps=("a", "b"))])
    assert isinstance(result, ItemRefusal)
    assert result.kind == "not_finite"


def test_scores_on_a_scale_are_refused(reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="scale 'z', expected raw ones"):
        ItemScorer(Scorer.from_pretrained(reward_model, scale="z"), name="rm", path="p")


# -- sleeping ---------------------------------------------------------------------------------------------------------


def test_sleep_moves_every_model_and_wake_up_moves_it_back(
    scorer: Scorer, reward_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices are told by what the models are moved to, for there is one device here."""
    ensemble = EnsembleScorer([scorer, Scorer.from_pretrained(reward_model)], on="raw")
    item_scorer = ItemScorer(ensemble, name="rm", path="p")
    expected, _ = item_scorer.score(conversations())
    moved: list[torch.device] = []
    for each in ensemble.checkpoints:
        move = each.model.to
        monkeypatch.setattr(each.model, "to", lambda device, move=move: (moved.append(device), move(device)))
    item_scorer.wake_up()
    assert moved == []
    item_scorer.sleep()
    item_scorer.sleep()
    assert len(moved) == 2
    item_scorer.wake_up()
    assert moved == [torch.device("cpu")] * 4
    assert item_scorer.score(conversations())[0] == expected


@pytest.mark.gpu
def test_sleep_frees_the_accelerator(reward_model: Path) -> None:
    scorer = Scorer.from_pretrained(reward_model, device="cuda")
    item_scorer = ItemScorer(scorer, name="rm", path="p")
    expected, _ = item_scorer.score(conversations())
    held = torch.cuda.memory_allocated()
    item_scorer.sleep()
    assert torch.cuda.memory_allocated() < held
    assert scorer.loaded.model.device.type == "cpu"
    item_scorer.wake_up()
    assert scorer.loaded.model.device.type == "cuda"
    assert item_scorer.score(conversations())[0] == pytest.approx(expected, abs=1e-5)


# -- what is known of the model ---------------------------------------------------------------------------------------


def test_the_model_s_facts(item_scorer: ItemScorer, scorer: Scorer, reward_model: Path) -> None:
    info = item_scorer.info
    assert (info.name, info.path, info.kind, info.max_length) == ("rm", "runs/rm", "sequence", 128)
    assert info.contract_sha256 == hashlib.sha256((reward_model / FILE_NAME).read_bytes()).hexdigest()
    assert info.fingerprint == scorer.fingerprint
    assert (info.architecture, info.dtype, info.device) == ("Qwen3ForSequenceClassification", "float32", "cpu")
    assert (info.layout, info.tokens_per_batch) == (scorer.layout.layout, 4096)
    assert (info.activation, info.reads_rendered, info.members_scale) == ("identity", "", "")
    assert scorer.contract is not None
    assert (info.reference, info.temperature) == (scorer.contract.reference, scorer.contract.temperature)
    assert set(info.versions) == {"rewardlab", "torch", "transformers", "tokenizers"}
    assert info.scale.transform([1.5], "z") == scorer.reference_scale.transform([1.5], "z")


def test_the_activation_is_what_vllm_would_apply(scorer: Scorer, process_scorer: Scorer) -> None:
    """Of one label: identity where the config says regression, else sigmoid (vLLM 0.33, ``get_act_fn``)."""
    config = SimpleNamespace(problem_type=None)
    other = SimpleNamespace(read_out=scorer.read_out, loaded=SimpleNamespace(model=SimpleNamespace(config=config)))
    assert _activation(other) == "sigmoid"  # type: ignore[arg-type]
    config.problem_type = "regression"
    assert _activation(other) == "identity"  # type: ignore[arg-type]
    assert _activation(process_scorer) == "identity"


def test_contracts_of_several_are_told_together(scorer: Scorer) -> None:
    one = SimpleNamespace(checkpoints=(scorer.loaded,))
    two = SimpleNamespace(checkpoints=(scorer.loaded, scorer.loaded))
    none = SimpleNamespace(checkpoints=(scorer.loaded, replace(scorer.loaded, contract=None)))
    hashes = [_contract_sha256(each) for each in (one, two, none)]  # type: ignore[arg-type]
    assert hashes[2] is None
    assert len(set(hashes)) == 3
