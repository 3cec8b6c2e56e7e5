"""Step-level search: hand-made trees with results derived by hand, and all small trees against trying every path."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rewardlab.data.template import seal_chat_template
from rewardlab.errors import ConfigError, DataError
from rewardlab.modeling.loading import RewardModel
from rewardlab.scoring.scorer import Scorer
from rewardlab.search.steps import AGGREGATES, Proposal, Solution, beam_search, best_of_n_steps
from rewardlab.types import PromptGroup, ReadOut, Text

Tree = dict[tuple[str, ...], list[Proposal]]


class Proposer:
    """Proposes what a table says."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __call__(self, prompt: Text, steps: Sequence[str], n: int) -> list[Proposal]:
        return self.tree.get(tuple(steps), [])[:n]


class Table:
    """Scores a step by a table, wherever it stands; remembers what it was asked."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.calls: list[PromptGroup] = []

    def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        self.calls.extend(groups)
        return [[[self.scores[step.text] for step in steps] for steps in group.steps] for group in groups]


def go(*texts: str) -> list[Proposal]:
    """Proposals; those that end in a full stop are final."""
    return [Proposal(text, text.endswith(".")) for text in texts]


TREE: Tree = {
    (): go("a", "b"),
    ("a",): go("c.", "d"),
    ("b",): go("e.", "f."),
    ("a", "d"): go("g."),
}
SCORES = {"a": 0.9, "b": 0.8, "c.": 0.3, "d": 0.6, "e.": 0.7, "f.": 0.75, "g.": 0.95}


def test_a_beam_of_two_finds_what_greedy_misses():
    """All paths by their minimum: b f. 0.75, b e. 0.7, a d g. 0.6, a c. 0.3.

    Two beams: depth 1 keeps a 0.9 and b 0.8. Depth 2 has a c. 0.3, a d 0.6, b e. 0.7, b f. 0.75: the best two are
    final, so nothing goes on, and the search ends without ever trying a d g.
    """
    scorer = Table(SCORES)
    result = beam_search("?", Proposer(TREE), scorer, beam_width=2, proposals_per_beam=2, max_steps=9)
    assert [(s.steps, s.score) for s in result.solutions] == [
        (("b", "f."), 0.75),
        (("b", "e."), 0.7),
        (("a", "c."), 0.3),
    ]
    assert result.best == Solution(("b", "f."), (0.8, 0.75), 0.75, True)
    assert (result.num_proposed, result.num_scored, result.num_pruned) == (6, 6, 0)
    assert [len(call.completions) for call in scorer.calls] == [2, 4]


def test_best_of_n_steps_is_greedy():
    """One beam: a (0.9 > 0.8), then d (0.6 > 0.3), then g.: minimum 0.6; c. was whole when it was passed by."""
    scorer = Table(SCORES)
    result = best_of_n_steps("?", Proposer(TREE), scorer, n=2, max_steps=9)
    assert [(s.steps, s.score) for s in result.solutions] == [(("a", "d", "g."), 0.6), (("a", "c."), 0.3)]
    assert len(scorer.calls) == 3


@pytest.mark.parametrize(
    ("aggregation", "best", "score"),
    [
        ("min", ("b", "f."), 0.75),
        ("product", ("b", "f."), 0.6),  # 0.8 * 0.75; a d g. has 0.9 * 0.6 * 0.95 = 0.513
        ("last", ("a", "d", "g."), 0.95),
        ("mean", ("a", "d", "g."), 2.45 / 3),  # 0.8167; b f. has 0.775
    ],
)
def test_each_aggregation_chooses_its_own(aggregation: str, best: tuple[str, ...], score: float):
    result = beam_search(
        "?",
        Proposer(TREE),
        Table(SCORES),
        beam_width=9,
        proposals_per_beam=9,
        max_steps=9,
        aggregation=aggregation,
    )
    assert result.best is not None
    assert result.best.steps == best
    assert result.best.score == pytest.approx(score)


def test_pruning_takes_exactly_what_is_below():
    """At 0.6: c. (0.3) goes, a d at exactly 0.6 stays. At 0.61 a d goes too. At 1 everything goes."""
    everything = {"beam_width": 9, "proposals_per_beam": 9, "max_steps": 9}
    at = beam_search("?", Proposer(TREE), Table(SCORES), prune_below=0.6, **everything)
    assert ([s.steps[-1] for s in at.solutions], at.num_pruned) == (["f.", "e.", "g."], 1)
    above = beam_search("?", Proposer(TREE), Table(SCORES), prune_below=0.61, **everything)
    assert ([s.steps[-1] for s in above.solutions], above.num_pruned) == (["f.", "e."], 2)
    nothing = beam_search("?", Proposer(TREE), Table(SCORES), prune_below=1.0, **everything)
    assert (nothing.solutions, nothing.best, nothing.num_pruned, nothing.num_scored) == ((), None, 2, 2)


def test_what_cannot_go_on_comes_after_what_is_whole():
    """Path x has no next step, y is cut by max_steps; both score higher than the one whole solution z."""
    tree: Tree = {(): go("x", "y", "z."), ("y",): go("y")}
    scores = {"x": 0.8, "y": 0.9, "z.": 0.1}
    result = beam_search("?", Proposer(tree), Table(scores), beam_width=3, proposals_per_beam=3, max_steps=2)
    assert [(s.steps, s.is_final) for s in result.solutions] == [
        (("z.",), True),
        (("y", "y"), False),
        (("x",), False),
    ]


def test_nothing_proposed_is_nothing_found():
    scorer = Table({})
    result = beam_search("?", Proposer({}), scorer, beam_width=2, proposals_per_beam=2, max_steps=2)
    assert (result.solutions, result.best, result.num_proposed, scorer.calls) == ((), None, 0, [])


def test_equal_proposals_are_one_path_and_the_first_of_equal_scores_wins():
    tree: Tree = {(): go("a.", "b.", "a.", "c.")}
    scorer = Table({"a.": 0.5, "b.": 0.5, "c.": 0.6})
    result = beam_search("?", Proposer(tree), scorer, beam_width=4, proposals_per_beam=4, max_steps=1)
    assert [s.steps[0] for s in result.solutions] == ["c.", "a.", "b."]
    assert (result.num_proposed, result.num_scored) == (4, 3)


def test_the_scorer_sees_whole_paths_in_one_group_and_its_new_scores_count():
    """A scorer whose step scores depend on what follows, as an encoder's: all steps of a path score 1 / its length."""

    class Encoder(Table):
        def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
            self.calls.extend(groups)
            return [[[1 / len(steps)] * len(steps) for steps in group.steps] for group in groups]

    scorer = Encoder({})
    tree: Tree = {(): go("a", "b"), ("a",): go("c."), ("b",): go("d.")}
    result = beam_search("2 + 2?", Proposer(tree), scorer, beam_width=2, proposals_per_beam=2, max_steps=5)
    assert result.best == Solution(("a", "c."), (0.5, 0.5), 0.5, True)
    assert [[step.text for step in steps] for steps in scorer.calls[1].steps] == [["a", "c."], ["b", "d."]]
    assert scorer.calls[1].prompt == "2 + 2?"
    assert scorer.calls[1].completions == ("a\nc.", "b\nd.")


def test_a_process_model_s_scorer_is_a_step_scorer(chat_tokenizer: PreTrainedTokenizerFast):
    """A random process model: the search's scores are those that the scorer gives the same steps as plain rows."""
    from transformers import LlamaConfig, LlamaForTokenClassification

    chat_tokenizer.add_special_tokens({"additional_special_tokens": ["<|step|>"]})
    seal_chat_template(chat_tokenizer)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(chat_tokenizer), num_labels=2, pad_token_id=0, use_cache=False, **shape)
    model = LlamaForTokenClassification(config).eval()
    read_out = ReadOut("step", "min", 2, "<|step|>")
    scorer = Scorer(RewardModel(model, chat_tokenizer, None, 128, "", read_out, Path("prm"), ()))
    result = beam_search("2 + 2?", Proposer(TREE), scorer, beam_width=9, proposals_per_beam=2, max_steps=9)
    assert len(result.solutions) == 4
    for solution in result.solutions:
        row = PromptGroup("2 + 2?", ["<|step|>".join(solution.steps)])
        assert list(solution.step_scores) == pytest.approx(scorer.step_scores([row])[0][0], abs=1e-5)
        assert solution.score == pytest.approx(1 / (1 + math.exp(-scorer.score_groups([row])[0][0])), abs=1e-5)
    assert len({solution.step_scores[-1] for solution in result.solutions}) == 4


# -- all small trees -------------------------------------------------------------------------------------------------


@st.composite
def trees(draw: st.DrawFn) -> tuple[Tree, dict[str, float]]:
    """A tree of depth at most three with up to three branches, and a score for each of its step texts."""
    tree: Tree = {}
    level: list[tuple[str, ...]] = [()]
    for _ in range(3):
        following = []
        for path in level:
            texts = draw(st.lists(st.sampled_from(["a", "b", "c", "a.", "b.", "c."]), max_size=3))
            tree[path] = go(*texts)
            following += [(*path, text) for text in dict.fromkeys(texts) if not text.endswith(".")]
        level = following[:4]
    chances = st.sampled_from([i / 8 for i in range(9)])
    return tree, {text: draw(chances) for text in ("a", "b", "c", "a.", "b.", "c.")}


def every_path(tree: Tree, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """All paths of a tree, by recursion: nothing of the search is in it."""
    below = [(*path, p.text) for p in tree.get(path, [])]
    return [*below, *itertools.chain.from_iterable(every_path(tree, b) for b in dict.fromkeys(below))]


def plainly(aggregation: str, scores: list[float]) -> float:
    if aggregation == "min":
        return min(scores)
    if aggregation == "last":
        return scores[-1]
    total = 1.0
    for score in scores:
        total *= score
    return total if aggregation == "product" else sum(scores) / len(scores)


@given(trees(), st.sampled_from(sorted(AGGREGATES)))
def test_a_wide_beam_is_an_exhaustive_search(made: tuple[Tree, dict[str, float]], aggregation: str):
    tree, scores = made
    scorer = Table(scores)
    result = beam_search(
        "?",
        Proposer(tree),
        scorer,
        beam_width=999,
        proposals_per_beam=9,
        max_steps=9,
        aggregation=aggregation,
    )
    paths = set(every_path(tree))
    whole = {path for path in paths if path[-1].endswith(".")}
    leaves = {path for path in paths - whole if not tree.get(path)}
    found = {s.steps: s.score for s in result.solutions}
    expected = {path: plainly(aggregation, [scores[t] for t in path]) for path in whole | leaves}
    assert found == pytest.approx(expected)
    assert {s.steps for s in result.solutions if s.is_final} == whole
    ranked = [(-s.is_final, -s.score) for s in result.solutions]
    assert ranked == sorted(ranked)
    assert result.num_scored == len(paths)
    assert len(scorer.calls) == max((len(path) for path in paths), default=0)


@given(trees(), st.sampled_from([0.2, 0.5, 0.8]))
def test_pruning_by_the_minimum_leaves_the_paths_without_a_bad_step(
    made: tuple[Tree, dict[str, float]], threshold: float
):
    """The minimum only falls along a path, so that a whole solution survives if and only if its own minimum does."""
    tree, scores = made
    wide = {"beam_width": 999, "proposals_per_beam": 9, "max_steps": 9}
    result = beam_search("?", Proposer(tree), Table(scores), prune_below=threshold, **wide)
    whole = {path for path in every_path(tree) if path[-1].endswith(".")}
    assert {s.steps for s in result.solutions if s.is_final} == {
        path for path in whole if min(scores[t] for t in path) >= threshold
    }


@given(trees(), st.integers(1, 3))
def test_a_narrow_beam_never_scores_more_than_width_times_proposals_at_a_depth(
    made: tuple[Tree, dict[str, float]], width: int
):
    tree, scores = made
    scorer = Table(scores)
    beam_search("?", Proposer(tree), scorer, beam_width=width, proposals_per_beam=2, max_steps=9)
    assert all(len(call.completions) <= width * 2 for call in scorer.calls)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"beam_width": 0}, "beam_width must be at least 1, got 0"),
        ({"proposals_per_beam": 0}, "proposals_per_beam must be at least 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"aggregation": "median"}, "unknown aggregation 'median'"),
        ({"prune_below": 1.5}, "prune_below is a probability"),
        ({"prune_below": math.nan}, "prune_below is a probability"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(changes: dict[str, object], told: str):
    settings = {"beam_width": 1, "proposals_per_beam": 1, "max_steps": 1, **changes}
    with pytest.raises(ConfigError, match=told):
        beam_search("?", Proposer(TREE), Table(SCORES), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("proposals", "told"),
    [
        (["a"], "expected a Proposal"),
        ([Proposal(" \n")], "a blank step"),
        (go("a", "b", "a"), "3 steps, 2 were asked for"),
    ],
)
def test_proposals_that_cannot_be_used_are_refused(proposals: list[Proposal], told: str):
    with pytest.raises(DataError, match=told):
        beam_search("?", lambda *_: proposals, Table(SCORES), beam_width=1, proposals_per_beam=2, max_steps=1)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([[[0.5]]], "1 lists of step scores for 2 paths"),
        ([[[0.5], [0.5, 0.5]]], "for 1 steps, expected a probability for each"),
        ([[[0.5], [1.5]]], "expected a probability for each"),
        ([[[0.5], [math.nan]]], "expected a probability for each"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(scores: list[list[list[float]]], told: str):
    class Broken:
        def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
            return scores

    with pytest.raises(DataError, match=told):
        beam_search("?", Proposer(TREE), Broken(), beam_width=2, proposals_per_beam=2, max_steps=1)


def test_the_example_shows_that_search_beats_sampling():
    path = Path(__file__).resolve().parents[2] / "examples" / "step_search.py"
    spec = importlib.util.spec_from_file_location("step_search", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    solved = example.run()
    assert solved["one sample"] + 0.1 < solved["best of 2 steps"] < solved["beam search of 4"]
