"""The ensemble's scores are its members' own, each by its own Scorer, put on one scale and combined by numpy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.calibration.reference import reference_statistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import CheckpointError, CompletionTooLongError, ConfigError, ContractError
from rewardlab.modeling.contract import FILE_NAME, HeadRecord, load_contract
from rewardlab.modeling.ensemble_heads import Heads
from rewardlab.modeling.head import head_name
from rewardlab.scoring.ensemble import EnsembleScorer
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

GROUPS = [
    PromptGroup("Write about the sea.", ["the sea and the wind", "a long poem about the sea and Paris", "x"]),
    PromptGroup("Hi", ["", "hello there, how are you?"]),
    PromptGroup("Write about Paris.", ["the sea and the wind"]),
]
OTHER_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}{% endfor %}"
)


def varied(folder: Path, seed: int) -> Scorer:
    """The small model with another head, its own zero and its own unit."""
    scorer = Scorer.from_pretrained(folder, tokens_per_batch=64)
    head = scorer.loaded.model.get_submodule(head_name(scorer.loaded.model))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.add_(0.3 * torch.randn(head.weight.shape, generator=generator)).mul_(1 + seed)
    scorer.loaded = replace(scorer.loaded, fingerprint=f"model {seed}")
    scorer.reference_scale = ScoreScale(reference_statistics([seed - 1.0, seed + 2.0], "held-out", "aaaa"), 0.5 + seed)
    return scorer


@pytest.fixture(scope="module")
def members(reward_model: Path) -> list[Scorer]:
    return [varied(reward_model, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def stranger(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of others: an encoder with another tokenizer (one token per character), another template, no contract."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import BertConfig, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("stranger")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=128
    )
    tokenizer.chat_template = OTHER_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        num_labels=1,
        initializer_range=0.5,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return folder


def alone(member: Scorer) -> list[np.ndarray]:
    """Per group one raw score per completion, each scored by itself."""
    return [
        np.array([member.score([group.prompt], [completion])[0] for completion in group.completions])
        for group in GROUPS
    ]


@pytest.fixture(scope="module")
def raw(members: list[Scorer]) -> list[np.ndarray]:
    """Per group (completions, members): what each member gives, alone."""
    return [np.stack(columns, axis=1) for columns in zip(*map(alone, members), strict=True)]


def by_formula(raw: np.ndarray, on: str) -> np.ndarray:
    """The scores of :func:`varied` members on a scale: their references are [seed - 1, seed + 2], T is 0.5 + seed."""
    seed = np.array([1.0, 2.0, 3.0])
    mean, std, temperature = seed + 0.5, 1.5, 0.5 + seed
    return {"calibrated": (raw - mean) / temperature, "z": (raw - mean) / std, "centered": raw - mean, "raw": raw}[on]


NUMPY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda s: s.mean(axis=1),
    "min": lambda s: s.min(axis=1),
    "median": lambda s: np.median(s, axis=1),
    "mean-std": lambda s: s.mean(axis=1) - 0.5 * s.std(axis=1),
    "weighted": lambda s: np.average(s, axis=1, weights=[3, 0, 1]),
}


@pytest.mark.parametrize("how", NUMPY)
@pytest.mark.parametrize("on", ["calibrated", "z", "centered", "raw"])
def test_scores_are_the_members_combined(members: list[Scorer], raw: list[np.ndarray], how: str, on: str) -> None:
    ensemble = EnsembleScorer(members, how, 0.5, [3, 0, 1] if how == "weighted" else None, on)
    outputs = ensemble.outputs([ensemble.encoder.encode(group) for group in GROUPS])
    (scores, _), disagreements = ensemble.scores_of(outputs), ensemble._with_disagreement(outputs)[1]
    of_members = [[of_one.tolist() for of_one in of_group] for of_group in outputs]
    for found, apart, each, own in zip(scores, disagreements, of_members, raw, strict=True):
        expected = by_formula(own, on)
        # In its own batches a member's score differs in its last bits; what is made of the scores does not.
        assert np.array(each) == pytest.approx(expected, abs=2e-5)
        assert found == pytest.approx(NUMPY[how](np.array(each)), abs=1e-12)
        assert apart == pytest.approx(np.array(each).std(axis=1), abs=1e-12)
    assert min(apart for of_group in disagreements for apart in of_group) > 1e-3


def test_every_way_in_gives_the_same(members: list[Scorer]) -> None:
    ensemble = EnsembleScorer(members, "median")
    scores, disagreements = ensemble.score_groups_disagreement(GROUPS)
    encoded = [ensemble.encoder.encode(group) for group in GROUPS]
    assert ensemble.score_groups(GROUPS) == ensemble.score_encoded(encoded) == scores
    assert ensemble.score_encoded_disagreement(encoded) == (scores, disagreements)
    assert ensemble.score_groups_members(GROUPS)[0] == scores


def test_the_order_of_the_members_does_not_matter(members: list[Scorer]) -> None:
    outputs = EnsembleScorer(members).score_groups_members(GROUPS)[1]
    found = EnsembleScorer(members[::-1], "median").score_groups_members(GROUPS)
    assert [[each[::-1] for each in of_group] for of_group in found[1]] == outputs
    assert found[0] == [[float(np.median(each)) for each in of_group] for of_group in outputs]
    assert EnsembleScorer(members).fingerprint != EnsembleScorer(members[::-1]).fingerprint


def test_one_member_is_its_own_scaled_score(members: list[Scorer]) -> None:
    raw = members[0].score_groups(GROUPS)
    expected = [members[0].reference_scale.transform(of_group, "calibrated") for of_group in raw]
    scores, disagreements = EnsembleScorer(members[:1], "mean-std").score_groups_disagreement(GROUPS)
    assert scores == expected
    assert disagreements == [[0.0] * len(group.completions) for group in GROUPS]


def test_neighbours_order_and_budget_do_not_matter(members: list[Scorer]) -> None:
    """The members' own laws hold for what is made of them; equal completions tie exactly."""
    ensemble = EnsembleScorer(members, "min")
    prompts = [group.prompt for group in GROUPS for _ in group.completions]
    completions = [completion for group in GROUPS for completion in group.completions]
    whole = ensemble.score(prompts, completions)
    alone = [ensemble.score([p], [c])[0] for p, c in zip(prompts, completions, strict=True)]
    assert alone == pytest.approx(whole, abs=2e-5)
    assert ensemble.score(prompts[::-1], completions[::-1])[::-1] == pytest.approx(whole, abs=2e-5)
    twice = ensemble.score_groups([PromptGroup("Hi", ["a", "b", "a"])])[0]
    assert twice[0] == twice[2] != twice[1]
    assert ensemble.score([], []) == []
    assert ensemble.score_groups_disagreement([]) == ([], [])


def test_what_it_is_to_others(members: list[Scorer]) -> None:
    ensemble = EnsembleScorer(members, "mean-std", 2.0, names=["a", "b", "c"])
    assert (ensemble.is_ensemble, members[0].is_ensemble) == (True, False)
    assert (ensemble.scale, ensemble.contract, ensemble.has_steps) == ("raw", None, False)
    assert ensemble.reference_scale.reference is ensemble.reference_scale.temperature is None
    assert ensemble.to_dict() == {
        "members": ["a", "b", "c"],
        "how": "mean-std",
        "k": 2.0,
        "weights": None,
        "on": "calibrated",
    }
    assert list(ensemble.contracts.values()) == [members[0].contract]  # three of one folder
    assert len(ensemble.encoder.encoders) == 1
    fingerprints = {
        EnsembleScorer(members, *how).fingerprint
        for how in [
            ("mean",),
            ("min",),
            ("mean-std", 1.0),
            ("mean-std", 2.0),
            ("weighted", 1.0, [1, 1, 2]),
            ("weighted", 1.0, [1, 2, 1]),
            ("mean", 1.0, None, "z"),
        ]
    } | {EnsembleScorer(members[:2]).fingerprint}
    assert len(fingerprints) == 8
    assert EnsembleScorer(members, "mean", 2.0).fingerprint in fingerprints  # k means nothing to the mean
    with pytest.raises(ConfigError, match="gives no step scores"):
        ensemble.step_scores(GROUPS)
    with pytest.raises(ConfigError, match="one model, with nobody to disagree with"):
        members[0].score_groups_disagreement(GROUPS)
    with pytest.raises(ConfigError, match="nobody to disagree with"):
        members[0].score_encoded_disagreement([])


def test_progress_is_told_once_for_all_members(members: list[Scorer]) -> None:
    ensemble = EnsembleScorer(members)
    encoded = ensemble.encoder.encode_many(GROUPS)
    told: list[int] = []
    ensemble.score_encoded_disagreement(encoded, told.append)  # type: ignore[arg-type]
    assert sum(told) == 6
    assert all(number > 0 for number in told)


def test_other_tokenizers_templates_and_architectures(members: list[Scorer], stranger: Path) -> None:
    """Each member reads its own ids of the same text; two of the three share them."""
    other = Scorer.from_pretrained(stranger)
    mixed = [members[0], other, members[1]]
    ensemble = EnsembleScorer(mixed, "mean", on="raw")
    assert len(ensemble.encoder.encoders) == 2
    scores, _ = ensemble.score_groups_disagreement(GROUPS)
    for found, *each in zip(scores, *map(alone, mixed), strict=True):
        assert found == pytest.approx(np.mean(each, axis=0), abs=2e-5)
    with pytest.raises(ConfigError, match=f"no common scale: {stranger}"):
        EnsembleScorer(mixed)


def test_what_any_member_cannot_take_is_an_error_naming_it(members: list[Scorer], stranger: Path) -> None:
    """120 characters are too many for the one that reads characters, and few tokens to the others."""
    ensemble = EnsembleScorer([members[0], Scorer.from_pretrained(stranger)], on="raw", names=["ours", "theirs"])
    long = PromptGroup("Hi", ["the sea and the wind " * 6], id="long")
    assert len(members[0].score_groups([long])) == 1
    good, error = ensemble.encoder.encode_many([GROUPS[0], long])
    assert isinstance(error, CompletionTooLongError)
    assert error.message.endswith("(member theirs)")
    assert "completion 0 needs" in error.message
    assert len(ensemble.score_encoded([good])[0]) == 3  # type: ignore[list-item]
    with pytest.raises(CompletionTooLongError, match=r"\(member theirs\)"):
        ensemble.score_groups([long])


def test_truncation_is_counted_by_who_cuts_most(members: list[Scorer], stranger: Path) -> None:
    ensemble = EnsembleScorer([members[0], Scorer.from_pretrained(stranger)], on="raw")
    assert ensemble.encoder.max_length == 128
    group = PromptGroup("the sea and the wind " * 6, ["x", "y"])
    assert members[0].encoder.encode(group).truncated == 0
    ensemble.score_groups([group, GROUPS[1]])
    assert ensemble.num_truncated == 2


def test_members_that_cannot_be_combined_are_refused(members: list[Scorer], reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="without members"):
        EnsembleScorer([])
    with pytest.raises(ConfigError, match="2 weights for 3 members"):
        EnsembleScorer(members, "weighted", weights=[1, 2])
    scaled = Scorer.from_pretrained(reward_model, scale="z")
    with pytest.raises(ConfigError, match="gives its scores on the scale 'z', expected raw"):
        EnsembleScorer([members[0], scaled])


def test_a_score_that_is_not_finite_names_its_member(members: list[Scorer], reward_model: Path) -> None:
    broken = Scorer.from_pretrained(reward_model)
    head = broken.loaded.model.get_submodule(head_name(broken.loaded.model))
    with torch.no_grad():
        head.weight.fill_(float("inf"))
    ensemble = EnsembleScorer([members[0], broken], on="raw", names=["good", "bad"])
    with pytest.raises(CheckpointError, match="member bad gives a score of"):
        ensemble.score_groups(GROUPS)


def test_a_member_whose_contract_does_not_hold_is_named(
    reward_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    contract = load_contract(folder)
    assert contract is not None
    text, score = (folder / FILE_NAME).read_text(), contract.probes[0].score
    (folder / FILE_NAME).write_text(text.replace(repr(score), repr(score + 0.1)))
    with pytest.raises(ContractError, match=f"member 2 of 2, {folder}: .*does not hold") as caught:
        EnsembleScorer.from_pretrained([reward_model, folder])
    assert caught.value.hint
    with pytest.raises(ConfigError, match="no ensemble is combined by 'best'"):
        EnsembleScorer.from_pretrained([reward_model, "not loaded"], "best")
    caplog.clear()
    ensemble = EnsembleScorer.from_pretrained([reward_model, reward_model], max_length=64, engine="padded")
    assert ensemble.encoder.max_length == 64
    assert "two members are the same checkpoint" in caplog.text
    assert ensemble.score_groups_disagreement(GROUPS)[1][0] == [0.0, 0.0, 0.0]


# -- the heads of one trunk -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_heads(reward_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as if it had been trained with three heads, whose mean its own head is."""
    folder = tmp_path_factory.mktemp("heads") / "rm"
    shutil.copytree(reward_model, folder, ignore=shutil.ignore_patterns("training"))
    contract = load_contract(folder)
    assert contract is not None
    loaded = Scorer.from_pretrained(folder).loaded
    own = Heads.of(loaded.model)
    change = torch.randn(3, own.weight.shape[1], generator=torch.Generator().manual_seed(0))
    heads = Heads(own.weight + 0.2 * (change - change.mean(dim=0)))
    records = []
    for number in range(3):
        model = plain_model(folder, heads.only(number))
        scores = [plain_score(model, probe.input_ids) for probe in contract.probes]
        reference = reference_statistics([number - 1.0, number + 2.0], "held-out", "aaaa")
        records.append(HeadRecord(reference, 1.0 + number, {"unit": "pair"}, scores, {"float32": 1e-4}))
    replace(contract, heads=records, heads_sha256=heads.save(folder)).save(folder)
    return folder


def plain_model(folder: Path, head: Heads) -> torch.nn.Module:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        model.score.weight.copy_(head.weight)
    return model


def plain_score(model: torch.nn.Module, ids: list[int]) -> float:
    with torch.inference_mode():
        return float(model(torch.tensor([ids])).logits[0, 0])


def test_heads_are_members(with_heads: Path) -> None:
    """Each head in a plain transformers model of its own; the mean of their raw scores is the checkpoint's own."""
    ensemble = EnsembleScorer.of_heads(with_heads, "min")
    assert ensemble.members == tuple(f"{with_heads} head {number}" for number in range(3))
    assert ensemble.on == "calibrated"
    _, of_members = ensemble.score_groups_members(GROUPS)
    tokenizer = AutoTokenizer.from_pretrained(with_heads)
    heads = Heads.of(ensemble.loaded.model)
    models = [plain_model(with_heads, heads.only(number)) for number in range(3)]
    for group, each in zip(GROUPS, of_members, strict=True):
        for completion, found in zip(group.completions, each, strict=True):
            turns = [("user", group.prompt), ("assistant", completion)]
            messages = [{"role": role, "content": text} for role, text in turns]
            ids = tokenizer.apply_chat_template(messages, return_dict=False)
            expected = [(plain_score(m, ids) - (n + 0.5)) / (1 + n) for n, m in enumerate(models)]
            assert found == pytest.approx(expected, abs=2e-5)
    scores = ensemble.score_groups(GROUPS)
    assert scores == [[min(found) for found in each] for each in of_members]
    mean = EnsembleScorer.of_heads(with_heads, "mean", on="raw", verify=False).score_groups(GROUPS)
    own = Scorer.from_pretrained(with_heads).score_groups(GROUPS)
    assert np.concatenate(mean) == pytest.approx(np.concatenate(own), abs=1e-5)


def test_a_checkpoint_with_one_head_is_no_ensemble(reward_model: Path) -> None:
    with pytest.raises(ConfigError, match="has one head: there is no ensemble to combine by 'min'"):
        EnsembleScorer.of_heads(reward_model, "min")


def test_heads_that_do_not_give_their_scores_are_refused(with_heads: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(with_heads, folder)
    contract = load_contract(folder)
    assert contract is not None
    first = replace(contract.heads[0], probe_scores=[score + 0.1 for score in contract.heads[0].probe_scores])
    replace(contract, heads=[first, *contract.heads[1:]]).save(folder)
    with pytest.raises(ContractError, match="the heads do not give the scores"):
        EnsembleScorer.of_heads(folder)


def test_what_is_computed_for_a_score(members: list[Scorer], stranger: Path, with_heads: Path) -> None:
    """Members of two tokenizers: each reads its own ids; heads of one trunk are one model."""
    other = Scorer.from_pretrained(stranger)
    ensemble = EnsembleScorer([*members, other], on="raw")
    assert ensemble.checkpoints == tuple(member.loaded for member in [*members, other])
    assert ensemble.tokens_per_batch == other.tokens_per_batch == 4096
    encoded = ensemble.encoder.encode(GROUPS[0])
    own, theirs = (sum(each.encode(GROUPS[0]).lengths) for each in (members[0].encoder, other.encoder))
    assert own != theirs
    assert ensemble.num_tokens(encoded) == 3 * own + theirs
    heads = EnsembleScorer.of_heads(with_heads)
    assert heads.checkpoints == (heads.loaded,)
    assert heads.num_tokens(heads.encoder.encode(GROUPS[0])) == own
