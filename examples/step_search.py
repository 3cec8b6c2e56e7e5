"""Step by step through a sum with a proposer that errs: sampling alone, and search with a process model.

Runs offline, in a second, with stand-ins: `propose` for a language model that samples a next step, `ArithmeticChecker`
for a process model. With real ones:

    scorer = Scorer.from_pretrained("my-process-model")        # trained with --objective process
    result = beam_search(problem, propose, scorer, beam_width=4, proposals_per_beam=2, max_steps=20)

    python examples/step_search.py
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from rewardlab.search import Proposal, beam_search, best_of_n_steps
from rewardlab.types import PromptGroup, Text, text_of

ERROR_RATE = 0.4
PROBLEMS = 500


def make_problem(draw: random.Random) -> str:
    """For example ``3 + 8 + 5 + 6 + 2``."""
    return " + ".join(str(draw.randint(1, 9)) for _ in range(5))


def answer_of(problem: str) -> int:
    """The true sum."""
    return sum(map(int, problem.split(" + ")))


def make_proposer(draw: random.Random) -> Callable[[Text, Sequence[str], int], list[Proposal]]:
    """A stand-in for a language model: it adds any number that is left, and four times in ten it is wrong by one."""

    def propose(prompt: Text, steps: Sequence[str], n: int) -> list[Proposal]:
        first, *left = map(int, text_of(prompt).split(" + "))
        so_far = int(steps[-1].split(" = ")[1]) if steps else first
        for step in steps:
            left.remove(int(step.split(" = ")[0].split(" + ")[1]))
        proposals = []
        for _ in range(n):
            number = draw.choice(left)
            total = so_far + number + (draw.choice((-1, 1)) if draw.random() < ERROR_RATE else 0)
            proposals.append(Proposal(f"{so_far} + {number} = {total}", is_final=len(left) == 1))
        return proposals

    return propose


class ArithmeticChecker:
    """A stand-in for a process model: fairly, not wholly, sure of what is right and what is wrong."""

    def step_scores(self, groups: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """P(correct) of each step."""
        return [[[self._score(step.text) for step in steps] for steps in group.steps] for group in groups]

    def _score(self, step: str) -> float:
        first, second, total = map(int, re.findall(r"-?\d+", step))
        doubt = random.Random(step)  # of its own, and the same each time
        return doubt.uniform(0.45, 1.0) if first + second == total else doubt.uniform(0.0, 0.5)


def run(seed: int = 0) -> dict[str, float]:
    """The share of problems solved, by method."""
    draw = random.Random(seed)
    propose, checker = make_proposer(draw), ArithmeticChecker()
    solved = {"one sample": 0, "best of 2 steps": 0, "beam search of 4": 0}
    for _ in range(PROBLEMS):
        problem = make_problem(draw)
        found = {
            "one sample": best_of_n_steps(problem, propose, checker, n=1, max_steps=4),
            "best of 2 steps": best_of_n_steps(problem, propose, checker, n=2, max_steps=4),
            "beam search of 4": beam_search(
                problem,
                propose,
                checker,
                beam_width=4,
                proposals_per_beam=2,
                max_steps=4,
                prune_below=0.2,
            ),
        }
        for name, result in found.items():
            if result.best is not None:
                solved[name] += int(result.best.steps[-1].split(" = ")[1]) == answer_of(problem)
    return {name: count / PROBLEMS for name, count in solved.items()}


if __name__ == "__main__":
    for name, share in run().items():
        print(f"{name:22} {share:.1%} of {PROBLEMS} problems solved")
