"""The generated chains against an independent reading of their own text."""

from __future__ import annotations

import re

import pytest

from rewardlab.studies.arithmetic import NEUTRAL_STEPS, generate_solutions
from rewardlab.types import PromptGroup

GROUPS = generate_solutions(0, 300, num_solutions=3)
ON_FIVE = generate_solutions(0, 300, num_solutions=3, clock=5)


def read(text: str, clock: int) -> tuple[int, int]:
    """What a step computes from its own operands, and what it states."""
    match = re.fullmatch(r"(\d)([+-])(\d)=(\d)", text)
    assert match
    a, b = int(match[1]), int(match[3])
    return (a + b if match[2] == "+" else a - b) % clock, int(match[4])


def answer(prompt: str, clock: int) -> int:
    """Python's own arithmetic on the problem."""
    return int(eval(prompt.removeprefix(f"On a clock of {clock}: "))) % clock


@pytest.mark.parametrize(("groups", "clock"), [(GROUPS, 10), (ON_FIVE, 5)])
def test_labels_are_what_the_steps_say(groups: list[PromptGroup], clock: int) -> None:
    for group in groups:
        for steps, label in zip(group.steps, group.labels, strict=True):
            wrong = [
                i
                for i, step in enumerate(steps)
                if step.text not in NEUTRAL_STEPS and len(set(read(step.text, clock))) > 1
            ]
            assert len(wrong) <= 1
            until = wrong[0] + 1 if wrong else len(steps)
            for i, step in enumerate(steps):
                expected = 0 if step.text in NEUTRAL_STEPS else -1 if i in wrong else 1
                assert step.label == (expected if i < until else None)
            assert (
                label == float(not wrong) == float(read(steps[-1].text, clock)[1] == answer(str(group.prompt), clock))
            )


def test_shares_are_those_asked_for() -> None:
    labels = [label for group in GROUPS for label in group.labels]
    steps = [
        step for group in generate_solutions(1, 300, label_after_error=True) for some in group.steps for step in some
    ]
    assert sum(labels) / len(labels) == pytest.approx(0.5, abs=0.05)
    assert sum(step.label == 0 for step in steps) / len(steps) == pytest.approx(0.2 / 1.2, abs=0.03)
    assert all(step.label is not None for step in steps)


def test_a_seed_gives_the_same_problems_and_no_problem_twice() -> None:
    assert generate_solutions(0, 300, num_solutions=3) == GROUPS
    assert len({group.prompt for group in GROUPS}) == len(GROUPS)
    assert isinstance(GROUPS[0], PromptGroup)
    assert len(GROUPS[0].completions) == 3
