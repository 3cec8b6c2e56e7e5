"""The engine against transformers alone, one sequence at a time: any layout, order and token budget give its scores.

The oracle is a second model with the same weights that the engine never touches.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import PreTrainedModel

from rewardlab.errors import CheckpointError
from rewardlab.modeling.engine import Engine, score_sequences
from rewardlab.modeling.planner import Forward, Planner, default_tokens_per_batch
from rewardlab.modeling.prefix_tree import count_tokens

LAYOUTS = ["llama tree", "llama packed", "llama padded", "bert pruned", "bert padded"]


def make_groups() -> list[list[list[int]]]:
    """K = 1, 2, 4 and 9 under one template head; one-token, equal and nested completions; no prefix at all."""
    rng = random.Random(0)

    def tokens(number: int) -> list[int]:
        return [rng.randrange(5, 300) for _ in range(number)]

    head = tokens(3)
    groups = []
    for num_completions, length in ((1, 8), (2, 12), (4, 5), (9, 20)):
        prompt = head + tokens(length)
        groups.append([prompt + tokens(1 + k % 6) for k in range(num_completions)])
    groups[2][1] = groups[2][0]
    groups[2][3] = [*groups[2][2], 7, 8]
    return [*groups, [tokens(6), tokens(4)], [[9]]]


GROUPS = make_groups()
SEQUENCES = [sequence for group in GROUPS for sequence in group]


@dataclass
class Case:
    """A layout, the model in it, and what transformers gives for :data:`SEQUENCES`."""

    layout: str
    model: PreTrainedModel
    untouched: PreTrainedModel
    expected: list[float]

    def engine(self, tokens_per_batch: int | None = None) -> Engine:
        return Engine(self.model, self.layout, tokens_per_batch)


def own_scores(model: PreTrainedModel, sequences: list[list[int]]) -> list[float]:
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits[0, 0].item() for ids in sequences]


@pytest.fixture(scope="module", params=LAYOUTS)
def case(request, make_model) -> Case:
    family, layout = request.param.split()
    untouched = make_model(family)
    return Case(layout, make_model(family), untouched, own_scores(untouched, SEQUENCES))


def computed_tokens(model: PreTrainedModel, sequences: list[list[int]], engine: Engine) -> int:
    """How many tokens the model really embeds to score some sequences."""
    seen: list[int] = []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].numel()))
    try:
        engine.score(sequences)
    finally:
        hook.remove()
    return sum(seen)


def held_by(forward: Forward) -> Iterator[tuple[int, list[int]]]:
    """What a forward's tensors hold: for each score its number and its sequence, read from the ids themselves."""
    ids = forward.inputs["input_ids"]
    if forward.row is None:
        lengths = forward.inputs["attention_mask"].sum(1).tolist()
        yield from ((i, row[:n].tolist()) for i, row, n in zip(forward.indices, ids, lengths, strict=True))
        return
    positions = forward.inputs["position_ids"][0].tolist()
    for index, segment, readout in zip(forward.indices, forward.row.segments, forward.row.readout, strict=True):
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, readout + 1)]
        assert [positions[at] for at in path] == list(range(len(path)))
        yield index, ids[0, path].tolist()


# -- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 11, 40, None], ids=lambda budget: f"budget {budget}")
def test_scores_equal_transformers_one_by_one(case: Case, budget: int | None) -> None:
    """A budget of 1 is smaller than any sequence but the last, 11 smaller than most prefixes."""
    assert max(case.expected) - min(case.expected) > 0.1  # else nothing would be compared
    assert case.engine(budget).score(SEQUENCES) == pytest.approx(case.expected, abs=1e-5)


@settings(max_examples=12, deadline=None)
@given(order=st.permutations(range(len(SEQUENCES))), budget=st.integers(1, 200), number=st.integers(1, len(SEQUENCES)))
def test_order_budget_and_neighbours_do_not_matter(case: Case, order: list[int], budget: int, number: int) -> None:
    chosen = order[:number]
    scores = case.engine(budget).score([SEQUENCES[i] for i in chosen])
    assert scores == pytest.approx([case.expected[i] for i in chosen], abs=1e-5)


@pytest.mark.parametrize("budget", [1, 40, None])
def test_equal_sequences_are_computed_once_and_score_exactly_alike(case: Case, budget: int | None) -> None:
    engine = case.engine(budget)
    a, b, c = [5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10]
    first, other, again, longer, last = engine.score([a, b, list(a), c, tuple(a)])
    assert first == again == last
    assert len({first, other, longer}) == 3
    assert computed_tokens(case.model, [a, b, a, c, a], engine) == computed_tokens(case.model, [a, b, c], engine)


def test_a_shared_prefix_is_computed_once(case: Case) -> None:
    """A prefix of 6 and completions of 1, 2 and 3 tokens: 12 in a tree, 24 one by one, 27 padded."""
    sequences = [[5] * 6 + [10 + k] * k for k in (1, 2, 3)]
    expected = {"tree": 12, "packed": 24, "padded": 27, "pruned": 27}
    assert computed_tokens(case.model, sequences, case.engine()) == expected[case.layout]


def test_what_follows_the_readout_of_a_padding_id_that_ends_sequences(make_model) -> None:
    """Models of others have pad == eos, and transformers reads the last token that is not the padding id.

    One sequence of nothing else is read at its first token. Dropping what cannot change a score must not merge the
    numbers of sequences that differ only there.
    """
    sequences = [[5, 6, 7, 1], [5, 6, 7, 1, 1], [5, 6, 7], [5, 6, 7, 1, 8, 1], [1, 5, 1], [1, 1], [5, 9, 1, 1]]
    untouched = make_model("llama")
    untouched.config.pad_token_id = 1
    expected = own_scores(untouched, sequences)
    assert expected[0] == pytest.approx(expected[2], abs=1e-6)  # it is not read at its last token
    for layout in ("tree", "packed", "padded"):
        for budget in (4, None):
            model = make_model("llama")
            model.config.pad_token_id = 1
            engine = Engine(model, layout, budget)
            assert engine.score(sequences) == pytest.approx(expected, abs=1e-5), (layout, budget)
            for part in engine.planner.parts([sequences[:3], sequences[3:]]):
                starts = [0 if group == 0 else 3 for group in part.groups]
                numbers = [start + i for start in starts for i in range(3 if start == 0 else 4)]
                for forward in part.forwards:
                    scores = engine.scores(forward).tolist()
                    assert scores == pytest.approx([expected[numbers[i]] for i in forward.indices], abs=1e-5)


def test_scoring_leaves_the_model_as_it_was(case: Case) -> None:
    """Dropout is off while scoring, training mode is back afterwards, also after an error; no gradients are kept."""
    engine = case.engine(40)
    for training in (True, False):
        case.model.train(training)
        assert engine.score(SEQUENCES) == pytest.approx(case.expected, abs=1e-5)
        assert case.model.training is training
        with pytest.raises(KeyboardInterrupt):
            engine.score(SEQUENCES, on_progress=interrupt)
        assert case.model.training is training
    assert all(parameter.grad is None for parameter in case.model.parameters())
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def interrupt(_: int) -> None:
    raise KeyboardInterrupt


def test_progress_counts_every_sequence(case: Case) -> None:
    engine = case.engine(40)
    for work in (engine.score, engine.features if case.layout != "padded" else engine.score):
        steps: list[int] = []
        work([*SEQUENCES, *SEQUENCES[:5]], on_progress=steps.append)
        assert sum(steps) == len(SEQUENCES) + 5
        assert len(steps) > 1
        assert min(steps) > 0


def test_nothing_to_score(case: Case) -> None:
    assert case.engine().score([]) == []
    assert score_sequences(case.model, [], layout=case.layout) == []


def test_score_sequences_is_the_engine_for_one_call(case: Case) -> None:
    steps: list[int] = []
    given = {"layout": case.layout, "tokens_per_batch": 40}
    assert score_sequences(case.model, SEQUENCES, on_progress=steps.append, **given) == case.engine(40).score(SEQUENCES)
    assert sum(steps) == len(SEQUENCES)
    assert len(steps) == len(case.engine(40).planner.forwards(sorted(set(map(tuple, SEQUENCES)))))


# -- what the head reads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [11, None])
def test_features_are_what_the_head_reads(case: Case, budget: int | None) -> None:
    """Decoders: the last hidden state at the last token; BERT: its pooler's output."""
    engine, sequences = case.engine(budget), [*SEQUENCES, SEQUENCES[3]]
    if case.model.config.model_type == "llama" and case.layout == "padded":
        case.model.train()
        with pytest.raises(CheckpointError, match="reads every token"):
            engine.features(sequences)
        assert case.model.training
        case.model.eval()
        return
    with torch.no_grad():
        outputs = [case.untouched.base_model(torch.tensor([ids])) for ids in sequences]
        expected = torch.cat([o.get("pooler_output", o.last_hidden_state[:, -1]) for o in outputs])
    features = engine.features(sequences)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)
    assert torch.equal(features[3], features[-1])
    head = case.model.get_submodule("score" if case.layout in ("tree", "packed") else "classifier")
    # An ordinary tensor: a head can be trained on it, and what hooked into the head is gone.
    head(features).sum().backward()
    case.model.zero_grad()
    assert not head._forward_pre_hooks
    assert engine.features([]).shape[0] == 0


# -- read-outs at tokens ----------------------------------------------------------------------------------------------

TOKEN_LAYOUTS = ["llama tree", "llama packed", "llama padded", "bert padded"]


def positions_of(sequences: list[list[int]], every: int) -> list[tuple[int, ...]]:
    """Every so many tokens from the first on, which all prefixes hold; and not always the last."""
    return [tuple(range(0, len(sequence), every)) for sequence in sequences]


@pytest.fixture(scope="module", params=TOKEN_LAYOUTS)
def token_case(request, make_model) -> Callable[[int], tuple[str, PreTrainedModel, list[Tensor]]]:
    """Number of labels -> a layout, the model, and what an untouched one gives at every token of SEQUENCES."""
    family, layout = request.param.split()

    def make(labels: int) -> tuple[str, PreTrainedModel, list[Tensor]]:
        untouched = make_model(family, "token", num_labels=labels)
        with torch.inference_mode():
            expected = [untouched(input_ids=torch.tensor([ids])).logits[0] for ids in SEQUENCES]
        return layout, make_model(family, "token", num_labels=labels), expected

    return make


@pytest.mark.parametrize("labels", [1, 3])
def test_outputs_equal_transformers_one_by_one(token_case, labels: int) -> None:
    layout, model, expected = token_case(labels)
    for every, budget in ((1, None), (3, 11), (2, 1), (100, 40)):
        readouts = positions_of(SEQUENCES, every)
        steps: list[int] = []
        found = Engine(model, layout, budget).outputs(SEQUENCES, readouts, steps.append)
        assert sum(steps) == len(found) == len(SEQUENCES)
        for values, own, truth in zip(found, readouts, expected, strict=True):
            assert (values.dtype, values.requires_grad, values.is_inference()) == (torch.float32, False, False)
            wanted = truth[list(own)].squeeze(-1)  # (read-outs,) of one label, (read-outs, labels) of several
            torch.testing.assert_close(values, wanted, rtol=0, atol=1e-5)
    assert Engine(model, layout).outputs([], []) == []


def test_equal_sequences_that_are_read_alike_are_computed_once(token_case) -> None:
    """The same ids read elsewhere are another thing to compute, and each caller gets its own read-outs in its order."""
    layout, model, _ = token_case(3)
    engine = Engine(model, layout, 8)
    ids, computed = [5, 6, 7, 8, 9], []
    hook = model.get_input_embeddings().register_forward_pre_hook(lambda _, inputs: computed.append(inputs[0].numel()))
    first, again, backwards, twice = engine.outputs([ids, tuple(ids), ids, ids], [(1, 4), (1, 4), (4, 1), (2, 2)])
    hook.remove()
    assert torch.equal(first, again)
    torch.testing.assert_close(backwards, first.flip(0), rtol=0, atol=1e-6)
    assert torch.equal(twice[0], twice[1])
    (lone,) = engine.outputs([ids], [(2,)])
    torch.testing.assert_close(lone[0], twice[0], rtol=0, atol=1e-6)
    needed = Planner(model, layout, 8).forwards([ids] * 3, [(1, 4), (4, 1), (2, 2)])
    assert sum(computed) == sum(forward.num_tokens for forward in needed)


def test_what_follows_the_last_read_out_is_not_computed(make_model) -> None:
    """Two solutions with one first step, read there alone: three tokens of 5 and of 7, once."""
    model = make_model("llama", "token")
    sequences = [[5, 6, 7, 8, 9], [5, 6, 7, 4, 4, 4, 4]]
    for layout, tokens in (("tree", 4), ("packed", 6)):  # of equal sequences a tree has the last token for each
        (forward,) = Planner(model, layout).forwards(sequences, [(2,), (0, 2)])
        assert forward.num_tokens == tokens
        assert sorted(forward.indices) == [0, 1, 2]


@settings(max_examples=25, deadline=None)
@given(data=st.data(), budget=st.integers(1, 60))
def test_parts_hold_each_read_out_exactly(make_model, data: st.DataObject, budget: int) -> None:
    """Read from the ids themselves: what stands on the way to each read-out is its sequence up to there."""
    groups = data.draw(groups_drawn)
    readouts = [
        [tuple(data.draw(st.lists(st.integers(0, len(s) - 1), min_size=1, max_size=4))) for s in group]
        for group in groups
    ]
    for layout in ("tree", "packed", "padded"):
        for part in Planner(_planned(make_model), layout, budget).parts(groups, readouts):
            wanted = [
                s[: at + 1] for g in part.groups for s, own in zip(groups[g], readouts[g], strict=True) for at in own
            ]
            held = sorted(chain(*map(read_by, part.forwards)))
            assert held == list(enumerate(wanted))


def read_by(forward: Forward) -> Iterator[tuple[int, list[int]]]:
    """For each row of output its number and the ids that it has seen."""
    ids = forward.inputs["input_ids"]
    if forward.row is None:
        assert forward.places is not None
        yield from (
            (i, ids[row, : at + 1].tolist()) for i, (row, at) in zip(forward.indices, forward.places, strict=True)
        )
        return
    for index, readout in zip(forward.indices, forward.row.readout, strict=True):
        (segment,) = [s for s in forward.row.segments if s.start <= readout < s.stop]
        path = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, readout + 1)]
        yield index, ids[0, path].tolist()


_PLANNED: list[PreTrainedModel] = []


def _planned(make_model) -> PreTrainedModel:
    if not _PLANNED:
        _PLANNED.append(make_model("llama", "token"))
    return _PLANNED[0]


@pytest.mark.parametrize("head", ["token", "language"])
@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_features_at_tokens(make_model, head: str, layout: str) -> None:
    model, readouts = make_model("llama", head), positions_of(SEQUENCES, 2)
    with torch.no_grad():
        hidden = [model.model(torch.tensor([ids])).last_hidden_state[0] for ids in SEQUENCES]
    features = Engine(model, layout, 40).features(SEQUENCES, readouts)
    expected = torch.cat([of[list(own)] for of, own in zip(hidden, readouts, strict=True)])
    torch.testing.assert_close(features, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
@pytest.mark.parametrize(
    ("readouts", "message"),
    [
        ([(0,), ()], r"sequence 1 has 3 ids and cannot be read at \[\]"),
        ([(0,), (3,)], r"sequence 1 has 3 ids and cannot be read at \[3\]"),
        ([(-1,), (0,)], r"sequence 0 has 2 ids and cannot be read at \[-1\]"),
        ([(0,)], "read-outs"),
    ],
)
def test_read_outs_that_are_not_there_are_refused(make_model, layout: str, readouts, message: str) -> None:
    model = _planned(make_model)
    sequences = [[5, 6], [5, 6, 7]]
    with pytest.raises(ValueError, match=message):
        Planner(model, layout).forwards(sequences, readouts)
    with pytest.raises(ValueError, match=message):
        Planner(model, layout).parts([sequences], [readouts])
    with pytest.raises(ValueError, match=message):
        Engine(model, layout).outputs(sequences, readouts)


def test_padded_heads_are_read_as_their_kind_is(make_model) -> None:
    """A sequence classifier chooses its own token; a token classifier has none to choose."""
    with pytest.raises(ValueError, match="LlamaForTokenClassification gives logits of shape"):
        Engine(make_model("llama", "token"), "padded").score([[5, 6]])
    with pytest.raises(ValueError, match="LlamaForSequenceClassification gives logits of shape"):
        Engine(make_model("llama"), "padded").outputs([[5, 6]], [(0,)])


# -- plans -----------------------------------------------------------------------------------------------------------

groups_drawn = st.lists(
    st.builds(
        lambda prompt, completions: [prompt + completion for completion in completions],
        st.lists(st.integers(5, 9), max_size=12),
        st.lists(st.lists(st.integers(5, 7), min_size=1, max_size=6), min_size=1, max_size=5),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40, deadline=None)
@given(groups=groups_drawn, budget=st.integers(1, 60))
def test_parts_hold_each_group_once_and_each_completion_exactly(case: Case, groups, budget: int) -> None:
    parts = Planner(case.model, case.layout, budget).parts(groups)
    assert sorted(chain(*(part.groups for part in parts))) == list(range(len(groups)))
    for part in parts:
        own = [sequence for group in part.groups for sequence in groups[group]]
        held = sorted(chain(*map(held_by, part.forwards)))
        assert held == list(enumerate(own))
        assert len(part.forwards) == 1 or len(part.groups) == 1
        for forward in part.forwards:
            assert forward.num_tokens <= budget or len(forward.indices) == 1
    if case.layout == "tree":
        computed = sum(forward.num_tokens for part in parts for forward in part.forwards)
        assert computed == count_tokens(groups, budget).computed


@settings(max_examples=40, deadline=None)
@given(groups=groups_drawn, budget=st.integers(1, 60))
def test_forwards_hold_each_sequence_exactly(case: Case, groups, budget: int) -> None:
    sequences = [sequence for group in groups for sequence in group]
    planner = Planner(case.model, case.layout, budget)
    forwards = planner.forwards(sequences)
    assert sorted(chain(*map(held_by, forwards))) == list(enumerate(sequences))
    assert all(forward.num_tokens <= budget or len(forward.indices) == 1 for forward in forwards)
    # What may not fit in memory comes first: the fullest row, or the longest sequence.
    key = [f.num_tokens if planner.is_packed else f.inputs["input_ids"].shape[1] for f in forwards]
    assert key == sorted(key, reverse=True)


def test_a_group_over_the_budget_is_a_part_of_several_forwards(case: Case) -> None:
    """The nine completions of 24 to 29 tokens at a budget of 40: the only group that no layout can hold at once."""
    parts = Planner(case.model, case.layout, 40).parts([GROUPS[3], GROUPS[5]])
    (large,) = [part for part in parts if len(part.forwards) > 1]
    assert large.groups == (0,)
    together = Planner(case.model, case.layout, 4000).parts(GROUPS)
    assert [part.groups for part in together] == [together[0].groups]
    assert sorted(together[0].groups) == list(range(len(GROUPS)))


@pytest.mark.parametrize("budget", [11, 40, 4000])
def test_parts_give_the_scores_with_gradients(case: Case, budget: int) -> None:
    engine = case.engine(budget)
    starts = [0, *accumulate(map(len, GROUPS))]
    for part in engine.planner.parts(GROUPS):
        numbers = [starts[group] + k for group in part.groups for k in range(len(GROUPS[group]))]
        for forward in part.forwards:
            scores = engine.scores(forward)
            assert scores.dtype == torch.float32
            assert scores.requires_grad
            expected = [case.expected[numbers[i]] for i in forward.indices]
            assert scores.tolist() == pytest.approx(expected, abs=1e-5)


def test_scores_go_through_the_wrapper_that_is_given(case: Case) -> None:
    class Wrapper(torch.nn.Module):
        def forward(self, **inputs: Tensor):
            output = case.model(**inputs)
            output.logits = -output.logits
            return output

    engine = case.engine()
    (forward,) = engine.planner.forwards(SEQUENCES[:2])
    torch.testing.assert_close(engine.scores(forward, Wrapper()), -engine.scores(forward), rtol=0, atol=0)


def test_tokens_of_a_forward_count_its_padding() -> None:
    assert Forward({"input_ids": torch.zeros(3, 7, dtype=torch.long)}, (0, 1, 2)).num_tokens == 21


def test_a_planner_travels_to_workers_without_the_model(case: Case) -> None:
    planner = Planner(case.model, case.layout, 40)
    travelled = pickle.dumps(planner)
    assert len(travelled) < 1000
    there = pickle.loads(travelled).forwards(SEQUENCES)
    here = planner.forwards(SEQUENCES)
    assert [forward.indices for forward in there] == [forward.indices for forward in here]
    assert all(torch.equal(a.inputs["input_ids"], b.inputs["input_ids"]) for a, b in zip(there, here, strict=True))


def test_the_budget_by_default_suits_the_device(case: Case) -> None:
    assert case.engine().planner.tokens_per_batch == default_tokens_per_batch(torch.device("cpu")) == 4096
    assert default_tokens_per_batch(torch.device("cuda")) == 8192
    assert case.engine().layout == case.layout


@pytest.mark.parametrize("layout", ["tree", "packed", "padded"])
def test_an_empty_sequence_is_refused(make_model, layout: str) -> None:
    planner = Planner(make_model("llama"), layout, 64)
    with pytest.raises(ValueError, match="sequence 1 has no ids"):
        planner.forwards([[5, 6], []])
    with pytest.raises(ValueError, match="sequence 1 has no ids"):
        planner.parts([[[5, 6], []]])


def test_threads_that_share_a_model_do_not_disturb_each_other(make_model) -> None:
    """Which attention a model calls is a setting of the model: without turns, a tree would run with the padded one."""
    model = make_model("llama")
    sequences = SEQUENCES
    engines = [Engine(model, "tree", 40), Engine(model, "padded", 40)]
    expected = engines[1].score(sequences)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: engines[number % 2].score(sequences), range(24)))
    for scores in found:
        assert scores == pytest.approx(expected, abs=1e-5)
