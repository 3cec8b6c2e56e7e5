"""Chains of one-digit arithmetic whose wrong and empty steps are known: the truth for outcome and process models.

A problem names a start and some operations on a clock (all results modulo its numbers); a solution works through them
one step at a time, by itself right, with one step whose result is wrong, and with steps that say nothing (neutral).
After a wrong step the chain goes on from the wrong number, so that its final answer is wrong too: adding and
subtracting on a clock keep numbers apart. Everything is drawn from a seed with Python's own generator.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from rewardlab.types import PromptGroup, Step

NEUTRAL_STEPS = ("Let us go on.", "Next.", "So far so good.", "We keep this number.")


def generate_solutions(
    seed: int,
    num_problems: int,
    *,
    num_solutions: int = 2,
    num_operations: tuple[int, int] = (2, 5),
    clock: int = 10,
    p_wrong: float = 0.5,
    p_neutral: float = 0.2,
    label_after_error: bool = False,
) -> list[PromptGroup]:
    """Problems with solutions, their outcomes and their step labels; no problem occurs twice.

    Args:
        seed: Seed of everything that is drawn.
        num_problems: Number of groups.
        num_solutions: Solutions of each.
        num_operations: Fewest and most operations of a problem.
        clock: How many numbers the clock has, 2 to 10: the fewer, the sooner a model knows all sums.
        p_wrong: Probability that a solution has a wrong step; which one is drawn uniformly.
        p_neutral: Probability that a step which says nothing stands before a step.
        label_after_error: Label the steps after a wrong one by themselves; else they are None, as in ProcessBench.

    Returns:
        Groups with ``labels`` (1.0: the final answer is right) and ``steps``.
    """
    rng = Random(seed)
    seen: set[str] = set()
    groups = []
    for number in range(num_problems):
        problem = _new_problem(rng, seen, num_operations, clock)
        solutions = [
            _solution(rng, problem, clock, p_wrong, p_neutral, label_after_error) for _ in range(num_solutions)
        ]
        groups.append(
            PromptGroup(
                _text_of_problem(problem, clock),
                tuple("\n".join(step.text for step in steps) for steps, _ in solutions),
                id=f"chain-{seed}-{number}",
                labels=tuple(float(right) for _, right in solutions),
                steps=tuple(steps for steps, _ in solutions),
            )
        )
    return groups


Problem = tuple[int, tuple[tuple[str, int], ...]]
"""The start, and the operations: a sign and a digit each."""


def _new_problem(rng: Random, seen: set[str], num_operations: tuple[int, int], clock: int) -> Problem:
    while True:
        count = rng.randint(*num_operations)
        problem = rng.randrange(clock), tuple((rng.choice("+-"), rng.randint(1, clock - 1)) for _ in range(count))
        text = _text_of_problem(problem, clock)
        if text not in seen:
            seen.add(text)
            return problem


def _text_of_problem(problem: Problem, clock: int) -> str:
    start, operations = problem
    return f"On a clock of {clock}: {start} " + " ".join(f"{sign} {digit}" for sign, digit in operations)


def _solution(
    rng: Random, problem: Problem, clock: int, p_wrong: float, p_neutral: float, label_after_error: bool
) -> tuple[tuple[Step, ...], bool]:
    """The steps of one solution, and whether its final answer is right."""
    current, operations = problem
    wrong_at = rng.randrange(len(operations)) if rng.random() < p_wrong else None
    steps: list[Step] = []
    after_error = False
    for place, (sign, digit) in enumerate(operations):
        for step in _one_step(rng, current, sign, digit, clock, place == wrong_at, p_neutral):
            steps.append(Step(step.text) if after_error and not label_after_error else step)
            after_error = after_error or step.label == -1
        current = int(steps[-1].text.rsplit("=", 1)[1])
    return tuple(steps), wrong_at is None


def _one_step(
    rng: Random, current: int, sign: str, digit: int, clock: int, wrong: bool, p_neutral: float
) -> Iterator[Step]:
    """A step that says nothing, by chance, and the one that computes."""
    if rng.random() < p_neutral:
        yield Step(rng.choice(NEUTRAL_STEPS), 0)
    right = (current + digit if sign == "+" else current - digit) % clock
    stated = (right + rng.randint(1, clock - 1)) % clock if wrong else right
    yield Step(f"{current}{sign}{digit}={stated}", -1 if wrong else 1)
