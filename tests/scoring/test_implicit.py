"""DPO's implicit reward against a log-softmax written out by hand, and against TRL's own trainer."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

from rewardlab.data.template import seal_chat_template
from rewardlab.errors import CheckpointError, ConfigError, DataError
from rewardlab.evaluation import Evaluator
from rewardlab.modeling.engine import Engine
from rewardlab.scoring.bulk import score_file
from rewardlab.scoring.implicit import ImplicitRewardScorer, load_policy, log_likelihoods
from rewardlab.types import PromptGroup

PROMPTS = ["Write about the sea.", "Write about Paris.", "Hi", "Hi", "Hi"]
COMPLETIONS = ["the sea and the wind", "a long poem about the sea and the wind and Paris", "x", "", "x y"]


def save_llama(folder: Path, tokenizer: PreTrainedTokenizerFast, seed: int, **changes: Any) -> Path:
    """A small Llama that is sure enough of its tokens for two of them to differ."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **changes,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy (its embeddings tied) and a reference, with the chat tokenizer of the base model."""
    folder = tmp_path_factory.mktemp("policies")
    tokenizer = AutoTokenizer.from_pretrained(base_model)
    policy = save_llama(folder / "policy", tokenizer, 1, tie_word_embeddings=True)
    return policy, save_llama(folder / "reference", tokenizer, 2)


def log_probability(folder: Path, prompt: str, completion: str, *, moved: int = 0) -> tuple[float, int]:
    """The log p(completion | prompt) and its tokens, one token at a time, by plain transformers and Python's own log.

    ``moved`` moves the seam between prompt and completion, to show that the tests would notice.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    turn = [{"role": "user", "content": prompt}]
    before = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    answered = [*turn, {"role": "assistant", "content": completion}]
    text = tokenizer.apply_chat_template(answered, tokenize=False)
    ids = tokenizer(text.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert ids[: len(before)] == before
    assert ids[-1] == tokenizer.eos_token_id
    with torch.inference_mode():
        logits = model(torch.tensor([ids])).logits[0].double().tolist()
    total = 0.0
    for position in range(len(before) + moved, len(ids)):
        row = logits[position - 1]
        total += row[ids[position]] - math.log(math.fsum(map(math.exp, row)))
    return total, len(ids) - len(before) - moved


@pytest.fixture(scope="module")
def scorer(models: tuple[Path, Path]) -> ImplicitRewardScorer:
    return ImplicitRewardScorer.from_pretrained(*models)


@pytest.mark.parametrize("normalised", [False, True], ids=["sum", "length-normalised"])
@pytest.mark.parametrize("has_reference", [True, False], ids=["reference", "reference-free"])
def test_scores_are_the_formula_s(models: tuple[Path, Path], normalised: bool, has_reference: bool) -> None:
    """The score is beta (log pi - log pi_ref), over the number of tokens where asked."""
    reference = models[1] if has_reference else None
    scorer = ImplicitRewardScorer.from_pretrained(models[0], reference, beta=0.25, length_normalised=normalised)
    expected = []
    for prompt, completion in zip(PROMPTS, COMPLETIONS, strict=True):
        total, tokens = log_probability(models[0], prompt, completion)
        if reference is not None:
            total -= log_probability(reference, prompt, completion)[0]
        expected.append(0.25 * total / (tokens if normalised else 1))
    scores = scorer.score(PROMPTS, COMPLETIONS)
    assert all(type(score) is float for score in scores)
    assert scores == pytest.approx(expected, abs=2e-5)
    assert max(scores) - min(scores) > 0.01


@pytest.mark.parametrize("moved", [-1, 1])
def test_a_seam_moved_by_one_token_would_be_noticed(
    models: tuple[Path, Path], scorer: ImplicitRewardScorer, moved: int
) -> None:
    prompt, completion = PROMPTS[0], COMPLETIONS[0]
    wrong = 0.1 * sum(
        sign * log_probability(folder, prompt, completion, moved=moved)[0]
        for sign, folder in zip((1, -1), models, strict=True)
    )
    assert abs(scorer.score([prompt], [completion])[0] - wrong) > 1e-3


def test_the_policy_beside_itself_is_exactly_zero(models: tuple[Path, Path]) -> None:
    scorer = ImplicitRewardScorer.from_pretrained(models[0], models[0])
    assert scorer.score(PROMPTS, COMPLETIONS) == [0.0] * len(PROMPTS)


def test_neighbours_layout_and_budget_do_not_matter(models: tuple[Path, Path], scorer: ImplicitRewardScorer) -> None:
    expected = scorer.score(PROMPTS, COMPLETIONS)
    assert scorer.layout.layout == "tree"
    alone = [scorer.score([p], [c])[0] for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    assert alone == pytest.approx(expected, abs=1e-5)
    for options in ({"engine": "padded"}, {"engine": "packed"}, {"tokens_per_batch": 8}):
        other = ImplicitRewardScorer.from_pretrained(*models, **options)
        assert other.score(PROMPTS, COMPLETIONS) == pytest.approx(expected, abs=1e-5)
    grouped = scorer.score_groups([PromptGroup("Hi", ["x", "", "x y", "x"]), PromptGroup(PROMPTS[0], [COMPLETIONS[0]])])
    assert grouped[0] == pytest.approx([expected[2], expected[3], expected[4], expected[2]], abs=1e-5)
    assert grouped[1] == pytest.approx(expected[:1], abs=1e-5)


def test_log_likelihoods_count_the_tokens_named(models: tuple[Path, Path]) -> None:
    """Of ids a b c d the tokens b and d: log p(b | a) + log p(d | a b c)."""
    loaded = load_policy(models[0])
    ids = (5, 9, 7, 11)
    with torch.inference_mode():
        rows = torch.log_softmax(loaded.model(torch.tensor([ids])).logits[0].double(), dim=-1)
    expected = float(rows[0, 9] + rows[2, 11])
    found = log_likelihoods(Engine(loaded.model, "tree"), [ids, (5, 9), ids], [(1, 3), (1,), (1, 3)])
    assert found.tolist() == pytest.approx([expected, float(rows[0, 9]), expected], abs=1e-5)
    assert found[0] == found[2]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL 1.16 uses names that transformers 5.23 has renamed
def test_rewards_are_those_that_trl_logs(models: tuple[Path, Path], tmp_path: Path) -> None:
    """TRL's own evaluation of a DPO policy: the mean reward of the chosen and of the rejected completions."""
    datasets = pytest.importorskip("datasets")
    trl = pytest.importorskip("trl")
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in [(PROMPTS[0], COMPLETIONS[0], "Paris"), (PROMPTS[1], COMPLETIONS[1], "no")]
    ]
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    seal_chat_template(tokenizer)  # else TRL counts the newline behind the end token too
    arguments = trl.DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.1,
        max_length=None,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = trl.DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(models[0]),
        ref_model=AutoModelForCausalLM.from_pretrained(models[1]),
        args=arguments,
        train_dataset=datasets.Dataset.from_list(rows),
        eval_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    logged = trainer.evaluate()
    scorer = ImplicitRewardScorer.from_pretrained(*models)
    for side in ("chosen", "rejected"):
        scores = scorer.score([row["prompt"] for row in rows], [row[side] for row in rows])
        assert sum(scores) / 2 == pytest.approx(logged[f"eval_rewards/{side}"], abs=1e-4)


def test_it_evaluates_and_tells_its_progress(scorer: ImplicitRewardScorer, pairs: list[PromptGroup]) -> None:
    result = Evaluator(scorer, resamples=50).evaluate(pairs[:8], progress=True)
    assert result.num_pairs == 8
    told: list[int] = []
    encoded = [scorer.encoder.encode(group) for group in pairs[:3]]
    scores = scorer.score_encoded(encoded, told.append)
    assert scores == scorer.score_groups(pairs[:3])
    assert sum(told) == 6


def test_it_scores_files(scorer: ImplicitRewardScorer, tmp_path: Path) -> None:
    rows = [{"prompt": "Hi", "completions": ["x", "x y"]}, {"prompt": "Hi", "completions": ["the sea", "x"]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_file(scorer, [tmp_path / "rows.jsonl"], tmp_path / "scores.jsonl")
    written = [json.loads(line)["scores"] for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    expected = scorer.score_groups([PromptGroup(str(row["prompt"]), row["completions"]) for row in rows])
    assert written == [pytest.approx(scores, abs=1e-5) for scores in expected]


def test_truncation_is_counted_and_keeps_the_completion(models: tuple[Path, Path]) -> None:
    scorer = ImplicitRewardScorer.from_pretrained(*models, max_length=48)
    long = scorer.score(["word " * 100 + "Hi"], ["x"])
    assert scorer.num_truncated == 1
    assert len(scorer.encoder.encode(PromptGroup("word " * 100, ["x"])).sequences[0]) == 48
    assert long != scorer.score(["Hi"], ["x"])


def test_it_is_asked_for_no_steps_and_no_tokens(scorer: ImplicitRewardScorer) -> None:
    assert scorer.contract is None
    for ask in (scorer.step_scores, scorer.token_logits):
        with pytest.raises(ConfigError):
            ask([PromptGroup("Hi", ["x"])])


def test_fingerprints_tell_models_and_settings_apart(models: tuple[Path, Path]) -> None:
    policy, reference = (load_policy(folder) for folder in models)
    scorers = [
        ImplicitRewardScorer(policy, reference, engine="padded"),
        ImplicitRewardScorer(policy, None, engine="padded"),
        ImplicitRewardScorer(reference, policy, engine="padded"),
        ImplicitRewardScorer(policy, reference, beta=0.2, engine="padded"),
        ImplicitRewardScorer(policy, reference, length_normalised=True, engine="padded"),
    ]
    assert len({scorer.fingerprint for scorer in scorers}) == 5
    assert ImplicitRewardScorer(policy, reference, engine="padded").fingerprint == scorers[0].fingerprint


# -- what is refused -------------------------------------------------------------------------------------------------


def test_another_tokenizer_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    """The same vocabulary but for one more token, which the policy's own text holds."""
    tokenizer = AutoTokenizer.from_pretrained(models[0])
    tokenizer.add_tokens(["bread"])
    other = save_llama(tmp_path / "other", tokenizer, 3)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        ImplicitRewardScorer.from_pretrained(models[0], other)


@pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
def test_a_beta_that_is_not_above_zero_is_refused(models: tuple[Path, Path], beta: float) -> None:
    with pytest.raises(ConfigError, match="beta must be above 0"):
        ImplicitRewardScorer.from_pretrained(*models, beta=beta)


def test_options_that_cannot_be_used_are_refused(models: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="an implicit reward is one score"):
        ImplicitRewardScorer.from_pretrained(*models, aggregation="mean")
    with pytest.raises(ConfigError, match="max_length 999"):
        ImplicitRewardScorer.from_pretrained(*models, max_length=999)
    with pytest.raises(ConfigError, match="unknown dtype"):
        load_policy(models[0], dtype="float8")


def test_a_reward_model_is_no_policy(reward_model: Path) -> None:
    with pytest.raises(CheckpointError, match="ForSequenceClassification gives tokens no probabilities"):
        load_policy(reward_model)


def test_a_policy_without_its_weights_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "cut"
    shutil.copytree(models[1], folder)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="weights are missing"):
        load_policy(folder)


def test_a_base_model_gets_the_plain_template(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = load_policy(save_llama(tmp_path / "base", tokenizer, 1))
    assert "the plain one is used" in caplog.text
    assert len(loaded.notes) == 1
    encoded = loaded.encoder().encode(PromptGroup("Hi", ["x"]))
    text = loaded.tokenizer.decode(encoded.sequences[0])
    assert text == "<bos>User: Hi\n\nAssistant: x<eos>"
    assert loaded.tokenizer.decode([encoded.sequences[0][p] for p in encoded.readouts[0]]) == "x<eos>"


def test_a_token_with_nothing_before_it_has_no_probability(models: tuple[Path, Path], tmp_path: Path) -> None:
    """A template that writes the contents alone: without a prompt, no answer is one end token without context."""
    folder = tmp_path / "bare"
    shutil.copytree(models[0], folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{{ eos_token }}{% endfor %}"
    tokenizer._tokenizer.post_processor = None  # it would put <bos> in front
    tokenizer.save_pretrained(folder)
    scorer = ImplicitRewardScorer.from_pretrained(folder, engine="padded")
    with pytest.raises(DataError, match="completion 0 is one token with nothing before it"):
        scorer.score([""], [""])
    assert len(scorer.score([""], ["x"])) == 1


def test_what_is_computed_for_a_score(models: tuple[Path, Path], scorer: ImplicitRewardScorer) -> None:
    assert scorer.checkpoints == (scorer.policy, scorer.reference)
    encoded = scorer.encoder.encode(PromptGroup("Hi", ["a", "b c"]))
    assert scorer.num_tokens(encoded) == 2 * sum(encoded.lengths)
    alone = ImplicitRewardScorer.from_pretrained(models[0], tokens_per_batch=100)
    assert (alone.checkpoints, alone.tokens_per_batch) == ((alone.policy,), 100)
    assert alone.num_tokens(encoded) == sum(encoded.lengths)
