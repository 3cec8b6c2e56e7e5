"""What the objectives learn of a known truth (slow), and the parts of the experiments that need no training."""

from __future__ import annotations

import pytest
import torch

from rewardlab.metrics.bootstrap import Interval
from rewardlab.modeling.aggregation import AGGREGATIONS
from rewardlab.studies import known_truth
from rewardlab.studies.arithmetic import generate_solutions
from rewardlab.studies.known_truth import Finding, Recovery, StudySize, step_scores_by_length
from rewardlab.types import PromptGroup, Step


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small lose more to threads waiting for each other than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_finding_is_above_baselines_by_its_lower_bound():
    assert Finding(Interval(0.7, 0.6, 0.8), {"a": 0.5, "b": 0.59}).above_baselines
    assert not Finding(Interval(0.7, 0.6, 0.8), {"a": 0.5, "b": 0.61}).above_baselines
    assert not Finding(Interval(0.7, None, None), {"a": 0.5}).above_baselines


def test_the_error_of_a_recovery_is_relative():
    assert Recovery(2.5, 2.25, 1.5, 0.9).error == pytest.approx(0.1)


def test_training_and_held_out_chains_share_no_problem():
    train, held_out = known_truth._chains(3, StudySize(400, 100), p_wrong=0.5)
    assert (len(train), len(held_out)) == (400, 100)
    assert not {group.prompt for group in train} & {group.prompt for group in held_out}


def test_chains_are_worth_less_by_3_for_a_wrong_step_and_by_1_for_an_empty_one():
    solutions = ((Step("1+1=2", 1), Step("Next.", 0), Step("2+1=0", -1)), (Step("1+1=2", 1), Step("2+1=3", 1)))
    group = PromptGroup("On a clock of 5: 1 + 1 + 1", ("a", "b"), steps=solutions)
    assert known_truth._utilities(group) == [-4.0, 0.0]


def test_an_equation_is_one_token_and_nothing_is_unknown():
    groups = generate_solutions(0, 2000, clock=known_truth.CLOCK)
    tokenizer = known_truth._word_tokenizer(groups)
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert len(tokenizer("3+4=2", add_special_tokens=False)["input_ids"]) == 1
    texts = [text for group in groups for text in (str(group.prompt), *map(str, group.completions))]
    assert all(tokenizer.unk_token_id not in ids for ids in tokenizer(texts)["input_ids"])


def test_true_rankings_share_ranks_where_utilities_are_equal():
    """Utilities 3.4, 2.2 and 3.4: two share the first place."""
    texts = ("The result is 5.", "The result is 5. I am not sure.", "It is 5.")
    ranking = known_truth._true_ranking(PromptGroup("What is 2 plus 3?", texts))
    assert ranking.ranks == (0, 1, 0)


def test_step_scores_by_length_take_one_end_for_wrong():
    group = PromptGroup("p", ("c",), steps=((Step("short"), Step("a much longer step")),))
    ((longer_is_wrong,),), ((shorter_is_wrong,),) = (step_scores_by_length([group], sign) for sign in (-1, 1))
    assert longer_is_wrong[0] > longer_is_wrong[1]
    assert shorter_is_wrong[0] < shorter_is_wrong[1]


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["plackett_luce", "grouped_pairs"])
def test_rankings_give_back_the_order_of_the_true_utilities(objective):
    found = known_truth.rankings(0, StudySize(2000, 300), objective)
    assert all(finding.above_baselines for finding in found.values()), found
    assert found["kendall_tau"].measured.low > 0.45


@pytest.mark.slow
def test_outcomes_give_back_which_solutions_are_right():
    """All but the product's accuracy at P > 1/2: a product of twenty probabilities orders, and is small."""
    found = known_truth.outcomes(0, StudySize(2000, 150, batch_size=4))
    found.pop("accuracy_product")
    assert all(finding.above_baselines for finding in found.values()), found
    for how in AGGREGATIONS:
        assert found[f"auc_{how}"].measured.low > 0.95


@pytest.mark.slow
def test_judged_steps_give_back_the_first_error():
    found = known_truth.steps(0, StudySize(1200, 150, batch_size=4))
    assert all(finding.above_baselines for finding in found.values()), found
    assert found["first_error_f1"].measured.low > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("nu", [0.4, 2.5])
def test_davidsons_parameter_is_recovered_where_utilities_are_learned(nu):
    found = known_truth.ties(0, StudySize(4000, 150, batch_size=4), nu, on="chains")
    assert found.error < 0.1, found
    assert found.from_shares < 0.8 * nu  # it is not read off the share of ties


@pytest.mark.slow
@pytest.mark.parametrize("margin_from", ["column", "llama2_large"])
def test_score_differences_go_with_strengths_with_margins_and_without(margin_from):
    """That margins raise it is shown where nothing else varies (``tests/objectives/test_margins.py``)."""
    found = known_truth.margins(0, StudySize(1500, 300, batch_size=4), margin_from)
    assert found.above_baselines, found
