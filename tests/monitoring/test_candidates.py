"""Which comparisons are considered, and the count of each reason why one is not."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from rewardlab.data.fingerprints import CompletionSketch
from rewardlab.monitoring.candidates import REASONS, candidates_of, comparisons_of, keys_of
from rewardlab.monitoring.keys import prompt_digest, unlabelled_key
from rewardlab.types import Pair, PromptGroup

POOL = [PromptGroup("p", ("x", "y", "z")), PromptGroup("q", ("x", "y"))]


def test_each_two_completions_or_the_groups_own_pairs() -> None:
    assert list(comparisons_of(POOL[0])) == [(0, 1), (0, 2), (1, 2)]
    assert list(comparisons_of(PromptGroup("p", ("x",)))) == []
    own = PromptGroup("p", ("x", "y", "z"), (Pair(2, 0), Pair(0, 2), Pair(1, 2)))
    assert list(comparisons_of(own)) == [(0, 2), (1, 2)]


def test_each_reason_counts() -> None:
    pool = [
        *POOL,
        PromptGroup("q", ("y", "x")),  # the same comparison, in the other order
        PromptGroup("r", ("same", "same")),
        PromptGroup("known", ("x", "y")),
        PromptGroup("trained", ("x", "y", "new")),
        PromptGroup("asked", ("x", "y")),
        PromptGroup("broken", ("x", "y")),
        PromptGroup("canary", ("x", "y")),
        PromptGroup("labelled", ("x", "y")),
    ]
    known = keys_of([PromptGroup("known", ("y", "x"), (Pair(0, 1),))])
    sketch = CompletionSketch.of([PromptGroup("trained", ("x", "y"))])
    asked = {unlabelled_key(pool[6], 1, 0)}
    canary, labelled = ({unlabelled_key(pool[place], 1, 0)} for place in (8, 9))
    found, left_out = candidates_of(
        pool, known=known, canary=canary, labelled=labelled, asked=asked, sketches=[sketch], unreadable={7}
    )
    assert left_out == dict.fromkeys(REASONS, 1)
    by_prompt = candidates_of(pool[:2], canary={prompt_digest(pool[0])})
    assert by_prompt[1]["canary"] == 3, "all of a prompt of the canary, whatever the completions"
    assert {(c.group, c.first, c.second) for c in found} == {
        (0, 0, 1),
        (0, 0, 2),
        (0, 1, 2),
        (1, 0, 1),
        (5, 0, 2),
        (5, 1, 2),
    }
    assert [c.key for c in found] == sorted(c.key for c in found)
    assert len({c.prompt for c in found}) == 3


@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4), max_size=6), st.randoms())
def test_none_is_lost_and_the_order_of_the_pool_means_nothing(texts: list[list[str]], rng: object) -> None:
    pool = [PromptGroup(str(number % 3), tuple(each)) for number, each in enumerate(texts)]
    found, left_out = candidates_of(pool)
    assert len(found) + sum(left_out.values()) == sum(len(list(combinations(each, 2))) for each in texts)
    shuffled = list(pool)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    again, left_out_again = candidates_of(shuffled)
    assert [c.key for c in again] == [c.key for c in found]
    assert left_out_again == left_out
