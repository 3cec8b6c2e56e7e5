"""Groups -> what the model is fed: encoding with every row accounted for, and micro-batches with their targets."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewardlab.data.encoding import EncodedGroup, Encoder, reason_of
from rewardlab.data.ledger import reason_kind
from rewardlab.data.merging import merge_by_prompt
from rewardlab.errors import DataError
from rewardlab.modeling.cost import ComputeCost
from rewardlab.modeling.engine import Forward, Planner
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.supervision import Supervision
from rewardlab.types import PromptGroup

_HINTS = {
    "completion too long": "raise max_length if the model allows it",
    "only ties": "ties can be learned from with --objective davidson",
}
_FEW_SHARED_PAIRS = 0.05  # below this share of the pairs, groups with several of them change nothing worth a word


@dataclass(frozen=True, slots=True)
class EncodedDataset:
    """Groups as ids, and what became of the rest. Each row that came is in ``groups``, ``dropped`` or ``quarantined``.

    Attributes:
        examples: The groups that are trained or evaluated on, those of one prompt merged where that was asked for.
        groups: The rows they were made of, not merged, with the pairs that are used.
        dropped: Rows left out because they teach nothing (the two sides of every pair are the same ids, every label is
            null), with the reason.
        dropped_pairs: Rows that stay, but lost such pairs, as they came; with how many they lost.
        quarantined: Rows that cannot be encoded, with the reason.
        num_truncated: Rows of which a sequence was cut.
    """

    examples: list[EncodedGroup]
    groups: list[PromptGroup]
    dropped: list[tuple[PromptGroup, str]]
    dropped_pairs: list[tuple[PromptGroup, str]]
    quarantined: list[tuple[PromptGroup, str]]
    num_truncated: int

    def required(self, name: str) -> EncodedDataset:
        """This set, if anything is left of it.

        Args:
            name: What it is for, ``"training"`` or ``"evaluation"``.

        Raises:
            DataError: Nothing is.
        """
        if not self.examples:
            reasons = Counter(reason_kind(reason) for _, reason in self.dropped + self.quarantined)
            hint = _HINTS.get(reasons.most_common(1)[0][0], "docs/objectives.md says what rows need")
            raise DataError(
                f"no {name} group is left: {len(self.dropped)} dropped, {len(self.quarantined)} quarantined "
                f"({self.told()})",
                hint=f"{hint}; `rewardlab data check` shows what is in the rows",
            )
        return self

    def told(self) -> str:
        """Why rows were left out, the commonest reasons with their counts."""
        reasons = Counter(reason_kind(reason) for _, reason in self.dropped + self.quarantined)
        return "; ".join(f"{count} × {kind}" for kind, count in reasons.most_common(3))


def encode_groups(
    groups: Sequence[PromptGroup],
    encoder: Encoder,
    supervision: Supervision,
    *,
    keep_identical: bool = False,
    max_group_size: int = 1,
) -> EncodedDataset:
    """Encode groups for an objective.

    A pair that has become identical (the template strips what differed) says nothing and is dropped, and its row with
    it if no other pair is left that teaches anything, where pairs are what is learned from; so is a row without any
    label that is not null. A row that cannot be encoded, or lacks what others have, is quarantined. All are counted.

    Args:
        groups: The rows.
        encoder: The model's encoder.
        supervision: What the objective learns from.
        keep_identical: Keep identical pairs: in an evaluation they are ties, which are not wins.
        max_group_size: Merge the rows of one prompt into groups of at most so many completions
            (:func:`~rewardlab.data.merging.merge_by_prompt`); 1 leaves every row a group of its own.

    Raises:
        DataError: No group has anything to learn from: then the data is of another kind.
    """
    examples: list[EncodedGroup] = []
    dropped: list[tuple[PromptGroup, str]] = []
    dropped_pairs: list[tuple[PromptGroup, str]] = []
    quarantined: list[tuple[PromptGroup, str]] = []
    supervision.require(groups)
    for group, item in zip(groups, encoder.encode_many(groups), strict=True):
        missing = supervision.lacks(group)
        if missing is not None:
            quarantined.append((group, f"nothing to learn from: {group.name}: no {missing}"))
            continue
        useless = supervision.useless(group)
        if isinstance(item, DataError):
            quarantined.append((group, reason_of(item)))
            continue
        if useless is not None:
            dropped.append((group, useless))
            continue
        different = [p for p in group.pairs if item.sequences[p.chosen] != item.sequences[p.rejected]]
        lost = 0 if keep_identical or not supervision.compares_pairs else len(group.pairs) - len(different)
        if not lost:
            examples.append(item)
            continue
        # Before the colon stands what ledgers count, the same for every number of pairs.
        count = f": {lost} of {len(group.pairs)} pairs" if len(group.pairs) > 1 else ""
        reason = f"chosen and rejected give the same token ids{count}"
        rest = dataclasses.replace(group, pairs=tuple(different)) if different else None
        if rest is None or supervision.useless(rest):
            dropped.append((group, reason))
        else:
            examples.append(dataclasses.replace(item, group=rest))
            dropped_pairs.append((group, reason))
    return EncodedDataset(
        examples=merge_by_prompt(examples, max_group_size),
        groups=[example.group for example in examples],
        dropped=dropped,
        dropped_pairs=dropped_pairs,
        quarantined=quarantined,
        num_truncated=sum(bool(example.truncated) for example in examples),
    )


def ties_note(data: EncodedDataset) -> str | None:
    """What to say under ``bradley_terry`` where pairs are ties; None where none is."""
    pairs = [pair for example in data.examples for pair in example.group.pairs]
    ties = sum(pair.tie for pair in pairs)
    if not ties:
        return None
    return (
        f"{ties} of {len(pairs)} pairs are ties: bradley_terry takes each as half a win for either side, "
        "--objective davidson also learns how likely ties are"
    )


def repeated_prompts_note(data: EncodedDataset) -> str | None:
    """What to say under ``bradley_terry`` where prompts have several pairs in one group; None where hardly any has.

    Args:
        data: The training groups, merged.

    Returns:
        One sentence with figures; None when fewer than 5 % of the pairs share their group with another.
    """
    pairs_of: Counter[str] = Counter()
    groups_of: Counter[str] = Counter()
    shared = 0
    for index, example in enumerate(data.examples):
        # Groups without a prompt are not known to belong together. A prompt's key is JSON: no such text is one.
        prompt = example.group.prompt_key if example.group.prompt else f"group {index}"
        pairs_of[prompt] += len(example.group.pairs)
        groups_of[prompt] += 1
        shared += len(example.group.pairs) if len(example.group.pairs) > 1 else 0
    if not shared or shared < _FEW_SHARED_PAIRS * pairs_of.total():
        return None
    several = [prompt for prompt, count in pairs_of.items() if count > 1]
    split = sum(groups_of[prompt] > 1 for prompt in several)
    return (
        f"{len(several)} of {len(pairs_of)} prompts have several pairs, up to {max(pairs_of.values())} for one; the "
        f"pairs of a prompt are in one group and step{f' ({split} too large for one: in several)' if split else ''}; "
        "under bradley_terry such a prompt counts as often as it has pairs, "
        f"--objective grouped_pairs counts each {'group' if split else 'prompt'} once"
    )


@dataclass(frozen=True, slots=True)
class TargetedPart:
    """Some whole groups of a micro-batch: how to compute their scores, and what the scores are to be.

    Attributes:
        forwards: The forwards that give the scores; several only for one group over the token budget.
        targets: The objective's targets, as indices into the scores of these groups' read-outs.
    """

    forwards: tuple[Forward, ...]
    targets: Any


class GroupCollator:
    """Encoded groups -> one rank's share of a micro-batch: parts, each whole groups under the token budget.

    All ranks are given the same groups; which are whose they find from the costs alone, so that nothing is exchanged,
    no group is counted twice and none is lost.

    Args:
        planner: Says which groups share a forward.
        supervision: What the objective learns from.
        cost: What groups cost to compute; None where there is one rank.
        ranks: Of the run.

    Attributes:
        planner: As given; looked up at each call, since the layout may be chosen later.
    """

    def __init__(
        self, planner: Planner, supervision: Supervision, cost: ComputeCost | None = None, ranks: Ranks | None = None
    ) -> None:
        self.planner = planner
        self.supervision = supervision
        self._cost = cost
        self._ranks = Ranks() if ranks is None else Ranks(ranks.index, ranks.count)  # no process group: workers copy it

    def __call__(self, examples: Sequence[EncodedGroup]) -> dict[str, Any]:
        """This rank's share of one micro-batch.

        Returns:
            As :meth:`planned`, and ``num_tokens``, those of all sequences of all ranks.
        """
        own = self.planned([examples[i] for i in self.own_share(examples)])
        return {**own, "num_tokens": sum(sum(example.lengths) for example in examples)}

    def own_share(self, examples: Sequence[EncodedGroup]) -> Sequence[int]:
        """Which of a micro-batch's groups are this rank's."""
        if self._cost is None or self._ranks.count == 1:
            return range(len(examples))
        layout = self.planner.layout
        return self._ranks.own_share([self._cost.of_group(example.sequences, layout) for example in examples])

    def planned(self, examples: Sequence[EncodedGroup]) -> dict[str, Any]:
        """Groups divided into forwards.

        Returns:
            ``examples``, as given; ``parts``, a list of :class:`TargetedPart`; and ``tokens_per_batch``, the budget
            that they were planned under.
        """
        readouts = [example.readouts for example in examples] if examples and examples[0].readouts else None
        planned = self.planner.parts([example.sequences for example in examples], readouts) if examples else []
        parts = [
            TargetedPart(part.forwards, self.supervision.targets([examples[g] for g in part.groups]))
            for part in planned
        ]
        return {"examples": list(examples), "parts": parts, "tokens_per_batch": self.planner.tokens_per_batch}


def sequences_of(examples: Sequence[EncodedGroup]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]] | None]:
    """All sequences of some groups, and where each is read; None where that is its last token."""
    sequences = [sequence for example in examples for sequence in example.sequences]
    readouts = [positions for example in examples for positions in example.readouts]
    return sequences, readouts or None


def targets_in(batch: dict[str, Any]) -> list[Any]:
    """All targets of this rank's share of a micro-batch."""
    if "parts" in batch:
        return [part.targets for part in batch["parts"]]
    return [batch["targets"]] if batch["targets"] is not None else []
