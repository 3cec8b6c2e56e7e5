"""The Scorer: text in, the score transformers gives out, whatever the form, order or batch."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.errors import CompletionTooLongError, ConfigError, ContractError, DataError
from rewardlab.modeling.contract import FILE_NAME, load_contract
from rewardlab.scoring.scorer import Scorer, _scale_of
from rewardlab.types import PromptGroup, ReadOut

PROMPTS = ["Write about the sea.", "Write about Paris.", "Hi", "Hi"]
COMPLETIONS = ["the sea and the wind", "a long poem about the sea and the wind and Paris", "x", ""]


@pytest.fixture(scope="module")
def scorer(reward_model: Path) -> Scorer:
    return Scorer.from_pretrained(reward_model)


def test_scores_are_plain_transformers_scores(scorer: Scorer, reward_model: Path) -> None:
    """Chat template, forward, logit: ten lines that know nothing of rewardlab."""
    tokenizer = AutoTokenizer.from_pretrained(reward_model)
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        with torch.inference_mode():
            ids = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=False)
            expected.append(model(ids).logits[0, 0].item())
    scores = scorer.score(PROMPTS, COMPLETIONS)
    assert all(type(score) is float for score in scores)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert max(scores) - min(scores) > 0.01


def test_messages_text_and_transcripts_score_alike(scorer: Scorer) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    forms = {
        "text": scorer.score(["Hello"], ["there"]),
        "messages": scorer.score([messages], [[{"role": "assistant", "content": "there"}]]),
        "mixed": scorer.score([messages], ["there"]),
        "transcript": scorer.score(["\n\nHuman: Hello\n\nAssistant:"], [" there"]),
    }
    assert len({tuple(scores) for scores in forms.values()}) == 1


def test_order_neighbours_and_budget_do_not_matter(scorer: Scorer, reward_model: Path) -> None:
    expected = scorer.score(PROMPTS, COMPLETIONS)
    assert scorer.score(PROMPTS[::-1], COMPLETIONS[::-1])[::-1] == pytest.approx(expected, abs=1e-5)
    alone = [scorer.score([p], [c])[0] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert alone == pytest.approx(expected, abs=1e-5)
    small = Scorer.from_pretrained(reward_model, tokens_per_batch=8)
    assert small.score(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)


def test_groups_give_one_list_each(scorer: Scorer) -> None:
    groups = [PromptGroup("Hi", ["a", "b", "c"]), PromptGroup("Write about the sea.", ["the sea and the wind"])]
    scores = scorer.score_groups(groups)
    assert [len(s) for s in scores] == [3, 1]
    assert scores[1][0] == pytest.approx(scorer.score(PROMPTS[:1], COMPLETIONS[:1])[0], abs=1e-5)


def test_thread_count_does_not_matter(scorer: Scorer) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(scorer.score(PROMPTS, COMPLETIONS))
    finally:
        torch.set_num_threads(before)
    assert results[0] == pytest.approx(results[1], abs=1e-5)


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ("Hi", ["x"], "prompts is one text"),
        (["Hi"], ["x", "y"], "1 prompts for 2 completions"),
        (["Hi"], [3], "item 0: completion is of the wrong type.*int"),
        ([[{"content": "no role"}]], ["x"], "item 0: broken messages: role"),
    ],
)
def test_bad_input_names_the_item(scorer: Scorer, prompts: object, completions: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scorer.score(prompts, completions)  # type: ignore[arg-type]


def test_a_completion_that_does_not_fit_is_an_error(scorer: Scorer) -> None:
    with pytest.raises(CompletionTooLongError, match="item 1: completion 0 needs"):
        scorer.score(["Hi", "Hi"], ["x", "word " * 400])


def test_nothing_to_score_is_nothing(scorer: Scorer) -> None:
    assert scorer.score([], []) == []


def test_a_broken_contract_is_refused_unless_told_not_to_look(
    reward_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    text = (folder / FILE_NAME).read_text()
    contract = load_contract(folder)
    assert contract is not None
    (folder / FILE_NAME).write_text(text.replace(repr(contract.probes[0].score), repr(contract.probes[0].score + 0.1)))
    with pytest.raises(ContractError, match="does not hold"):
        Scorer.from_pretrained(folder)
    assert len(Scorer.from_pretrained(folder, verify=False).score(["Hi"], ["x"])) == 1
    assert "NOT checked" in caplog.text


def test_bfloat16_is_close(scorer: Scorer, reward_model: Path) -> None:
    lower = Scorer.from_pretrained(reward_model, dtype="bfloat16")
    assert lower.score(PROMPTS, COMPLETIONS) == pytest.approx(scorer.score(PROMPTS, COMPLETIONS), abs=0.05)


def test_truncation_is_counted_and_told_once(reward_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    scorer = Scorer.from_pretrained(reward_model)
    scorer.score(["word " * 200, "Hi"], ["x", "y"])
    scorer.score(["word " * 200], ["x"])
    assert scorer.num_truncated == 2
    assert caplog.text.count("1 of 2 sequences are longer than 128 tokens") == 1
    assert caplog.text.count("sequences are longer") == 1


def test_the_scale_is_of_scores_aggregated_as_the_models_own(reward_model: Path) -> None:
    """A temperature fitted on minima says nothing of products: not raw is refused, and raw has no temperature."""
    contract = load_contract(reward_model)
    assert contract is not None
    contract = replace(contract, temperature=2.0, calibration={"unit": "completion"})
    own = ReadOut("step", "min", 2, "<|step|>")
    loaded = SimpleNamespace(contract=contract, read_out=own)
    assert _scale_of(loaded, own, "calibrated").temperature == 2.0  # type: ignore[arg-type]
    assert _scale_of(loaded, own, "raw").unit == "completion"  # type: ignore[arg-type]
    other = replace(own, aggregation="product")
    assert _scale_of(loaded, other, "raw").temperature is None  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="aggregated as the model's own") as error:
        _scale_of(loaded, other, "z")  # type: ignore[arg-type]
    assert "leave out the aggregation" in error.value.hint


def test_settings_are_what_decides_the_scores_beside_the_checkpoint(scorer: Scorer, reward_model: Path) -> None:
    """As JSON, since a bulk run keeps them: one that was begun under others is not gone on with."""
    import json

    assert json.loads(json.dumps(scorer.settings)) == scorer.settings
    other = Scorer.from_pretrained(reward_model, max_length=64, engine="padded", dtype="bfloat16", scale="z")
    differing = {name for name in scorer.settings if scorer.settings[name] != other.settings[name]}
    assert differing == {"max_length", "layout", "dtype", "scale"}


def test_what_is_computed_for_a_score(scorer: Scorer, reward_model: Path) -> None:
    assert scorer.checkpoints == (scorer.loaded,)
    assert scorer.tokens_per_batch == 4096
    assert Scorer.from_pretrained(reward_model, tokens_per_batch=100).tokens_per_batch == 100
    encoded = scorer.encoder.encode(PromptGroup("Hi", ["a", "b c"]))
    assert scorer.num_tokens(encoded) == sum(map(len, encoded.sequences))


def test_no_bar_is_drawn_where_nobody_looks(scorer, capsys):
    """An empty line on stderr is enough for cron to send a mail."""
    scorer.score_groups([PromptGroup("2 + 2?", ("4", "5"))], progress=True)
    assert capsys.readouterr().err == ""
