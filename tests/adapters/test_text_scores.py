from __future__ import annotations

import numpy as np
import pytest

from rewardlab.adapters import text_scores
from rewardlab.adapters.text_scores import EndTokens, score_texts, texts_of
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup

NOTHING = EndTokens(())


def test_scores_are_the_scorers_in_the_order_of_the_calls(scorer, six):
    found = score_texts(scorer, texts_of(*six, NOTHING))
    assert found.scores == pytest.approx(scorer.score(*six), abs=1e-5)
    assert found.disagreements is None
    assert found.unscored == ()
    assert found.num_truncated == 0


def test_completions_of_one_prompt_are_encoded_as_one_group(scorer, six, monkeypatch):
    """Else the tree would be left to what the engine finds, and a baseline's prompt computed twice."""
    seen: list[PromptGroup] = []
    encode = scorer.encoder.encode_many
    monkeypatch.setattr(scorer.encoder, "encode_many", lambda groups: seen.extend(groups) or encode(groups))
    score_texts(scorer, texts_of(*six, NOTHING))
    assert [len(group.completions) for group in seen] == [3, 3]


def test_text_and_messages_are_one_prompt_and_one_score(scorer, six):
    prompts, completions = six
    messages = [[{"role": "user", "content": prompt}] for prompt in prompts]
    answers = [[{"role": "assistant", "content": completion}] for completion in completions]
    text = score_texts(scorer, texts_of(prompts, completions, NOTHING))
    assert score_texts(scorer, texts_of(messages, answers, NOTHING)).scores.tolist() == text.scores.tolist()
    assert np.allclose(score_texts(scorer, texts_of(prompts, answers, NOTHING)).scores, text.scores)


def test_a_completion_that_does_not_fit_leaves_its_neighbours_their_scores(scorer, six, too_long):
    prompts, completions = six
    whole = score_texts(scorer, texts_of(prompts, completions, NOTHING)).scores
    spoiled = score_texts(scorer, texts_of(prompts, [*completions[:2], too_long, *completions[3:]], NOTHING))
    assert np.isnan(spoiled.scores[2])
    assert np.delete(spoiled.scores, 2) == pytest.approx(np.delete(whole, 2), abs=1e-5)
    assert [(item.index, item.reason.partition(":")[0]) for item in spoiled.unscored] == [(2, "completion too long")]


def test_half_a_utf16_pair_leaves_its_neighbours_their_scores(scorer):
    found = score_texts(scorer, texts_of(["p"] * 3, ["a poem", "a\ud800b", "the sea"], NOTHING))
    assert found.scores[[0, 2]] == pytest.approx(scorer.score(["p", "p"], ["a poem", "the sea"]), abs=1e-5)
    ((index, reason),) = [(one.index, one.reason) for one in found.unscored]
    assert (index, "lone surrogate" in reason) == (1, True)


def test_a_prompt_that_is_too_long_is_cut_and_counted(scorer):
    found = score_texts(scorer, texts_of(["the sea and the wind " * 60] * 2, ["a poem", "short"], NOTHING))
    assert np.isfinite(found.scores).all()
    assert found.num_truncated == 2


def test_portions_change_no_score_and_no_place(scorer, six, monkeypatch):
    """Portions of 2 cut both groups of 3; memory is that of a portion."""
    whole = score_texts(scorer, texts_of(*six, NOTHING)).scores
    monkeypatch.setattr(text_scores, "_CHUNK", 2)
    assert score_texts(scorer, texts_of(*six, NOTHING)).scores == pytest.approx(whole, abs=1e-5)


def test_a_model_that_gives_no_number_gives_no_score(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "score_encoded", lambda encoded: [[float("nan"), 1.0] for _ in encoded])
    found = score_texts(scorer, [("p", "a"), ("p", "b")])
    assert [(item.index, item.reason) for item in found.unscored] == [(0, "no finite score: the model gives nan")]


def test_nothing_is_nothing(scorer):
    assert score_texts(scorer, []).scores.shape == (0,)


def test_what_the_template_refuses_is_an_error_and_no_missing_score(scorer):
    """It is wrong input, not something that the policy did: a run on it would learn from nothing."""
    scorer_template = scorer.encoder.tokenizer.chat_template
    try:
        scorer.encoder.tokenizer.chat_template = "{{ raise_exception('no such turns') }}"
        with pytest.raises(DataError, match="no such turns"):
            score_texts(scorer, [("p", "a")])
    finally:
        scorer.encoder.tokenizer.chat_template = scorer_template


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Paris.<|im_end|>", "Paris."),
        ("Paris. <|im_end|>\n<pad><pad>", "Paris. "),
        ("<bos>Paris.\n", "Paris.\n"),
        (" Paris is <pad> in France ", " Paris is <pad> in France "),
        ("<|im_end|><pad>", ""),
    ],
)
def test_special_tokens_go_from_the_ends_and_nothing_else_does(given, expected):
    ends = EndTokens(["<pad>", "<|im_end|>", "<bos>", ""])
    assert ends.strip(given) == expected
    assert ends.strip([{"role": "assistant", "content": given}]) == [{"role": "assistant", "content": expected}]


def test_numbers_that_differ_and_one_text_for_many_are_refused():
    with pytest.raises(DataError, match="2 prompts for 1 completions"):
        texts_of(["a", "b"], ["c"], NOTHING)
    with pytest.raises(DataError, match="prompts is one text"):
        texts_of("a", ["c"], NOTHING)
    with pytest.raises(DataError, match="item 1: "):
        texts_of(["a", "b"], ["c", 3], NOTHING)
