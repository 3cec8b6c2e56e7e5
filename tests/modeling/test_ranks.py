"""Work is shared out whole, evenly and alike everywhere; what each process finds comes to all in their order."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.modeling.ranks import Ranks, share_out

COSTS = st.lists(st.floats(0, 1e12), max_size=40)


@given(COSTS, st.integers(1, 9))
def test_every_piece_is_in_one_share(costs, count):
    shares = share_out(costs, count)
    assert len(shares) == count
    assert sorted(piece for share in shares for piece in share) == list(range(len(costs)))
    assert all(share == sorted(share) for share in shares)


@given(COSTS, st.integers(1, 9))
def test_no_share_is_dearer_than_the_theorem_allows(costs, count):
    """A list schedule is at most the mean plus (1 - 1/m) of the dearest piece (Graham 1969, theorem 1)."""
    most = max((sum(costs[piece] for piece in share) for share in share_out(costs, count)), default=0.0)
    bound = sum(costs) / count + (1 - 1 / count) * max(costs, default=0.0)
    assert most <= bound * (1 + 1e-9)


def test_a_division_worked_out_by_hand():
    """7 | 6 first; 5 to the 6, then 4 to the 7; both have 11 in two pieces, and 3 goes to the first."""
    assert share_out([3, 4, 5, 6, 7], 2) == [[0, 1, 4], [2, 3]]


def test_pieces_that_cost_nothing_leave_no_share_empty():
    assert share_out([0.0, 0.0, 0.0], 3) == [[0], [1], [2]]


def test_one_process_alone_does_all_and_hears_itself():
    ranks = Ranks.of_this_run()
    assert (ranks.index, ranks.count) == (0, 1)
    assert ranks.gather("x") == ["x"]
    assert ranks.own_share([1.0, 2.0]) == [0, 1]


def gathered(rank: int, meeting: Path, answers) -> None:
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    ranks = Ranks.of_this_run()
    answers.put((rank, ranks.index, ranks.count, ranks.gather({"of": rank}), ranks.own_share([1, 1, 1])))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_learn_what_each_has(tmp_path):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=gathered, args=(rank, tmp_path / "meeting", answers)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    everyone = [{"of": 0}, {"of": 1}]
    assert found == [(0, 0, 2, everyone, [0, 2]), (1, 1, 2, everyone, [1])]
