"""What a report on a set means, in plain words: the warnings of ``rewardlab data check``.

This file knows the report's numbers and nothing of how they were counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rewardlab.data.agreement import ENOUGH_PAIRS
from rewardlab.types import MOST_IMPLIED_PAIRS

if TYPE_CHECKING:
    from rewardlab.data.check import DataReport

_LENGTH_SHARE = 0.6  # a share of pairs won by the longer (or by the shorter) side from which length is a shortcut
_ROWS_PER_PROMPT = 3.0  # from here on, a split by rows would put most prompts on both sides
_LITTLE_AGREEMENT = 0.2  # alpha: raters of chat preferences, who agree in about 70 % of cases, are above it


def advice(report: DataReport) -> Iterator[str]:
    """One sentence for each thing that spoils training or its measurement, the worst first."""
    if report.shared_prompts:
        yield (
            f"{report.shared_prompts:,} prompts ({report.shared_groups:,} rows) also stand in the other set: "
            "evaluation on it would reward memory; split by prompt"
        )
    near = report.near_duplicates
    if near.shared_prompts:
        yield (
            f"{near.shared_prompts:,} more prompts ({near.shared_groups:,} rows) are nearly the same as one of the "
            f"other set, first {' and '.join(near.shared_places[0])}: look at them, and leave them out on one side"
        )
    if report.contradictory:
        yield (
            f"{report.contradictory:,} pairs are preferred both ways under one prompt, first at "
            f"{' and '.join(report.contradictory_places[0])}: noise of the labels, or sides swapped by mistake"
        )
    if report.cycles.cycles:
        yield (
            f"{report.cycles.pairs:,} pairs under {report.cycles.prompts:,} prompts go round in circles (a over b, "
            f"b over c, c over a), first at {report.cycles.places[0]}: no scores agree with all of them"
        )
    agreement = report.agreement
    if (
        agreement is not None
        and agreement.pairs >= ENOUGH_PAIRS
        and agreement.alpha is not None
        and agreement.alpha < _LITTLE_AGREEMENT
    ):
        yield (
            f"raters agree little: Krippendorff's alpha {agreement.alpha:.2f} on the {agreement.pairs:,} pairs that "
            "were judged more than once; much of what is learned is noise"
        )
    if report.duplicates:
        yield f"{report.duplicates:,} rows repeat an earlier row exactly: they count more in the loss than the others"
    if near.clusters:
        yield (
            f"{near.rows:,} rows are nearly the same as another one ({near.clusters:,} clusters), first "
            f"{' and '.join(near.places[0])}: they count more in the loss than the others"
        )
    if near.across_prompts:
        yield (
            f"{near.across_prompts:,} clusters of rows that are nearly the same have several prompts, first "
            f"{' and '.join(near.across_places[0])}: a split by prompt may part them"
        )
    wins = report.longer_wins
    if wins is not None and max(wins.longer, wins.shorter) >= _LENGTH_SHARE:
        side = "longer" if wins.longer > wins.shorter else "shorter"
        yield (
            f"the {side} completion is the chosen one in {max(wins.longer, wins.shorter):.0%} of pairs: "
            "a model can win by length alone; compare every accuracy with that baseline"
        )
    if report.groups - report.without_prompt > 1 and report.groups >= _ROWS_PER_PROMPT * report.prompts:
        yield (
            f"few prompts, many rows: {report.groups:,} rows share {report.prompts:,} prompts "
            f"({report.groups / report.prompts:.1f} each): a split by rows leaks, and intervals by prompt are wide"
        )
    if report.contents.unlisted_pairs:
        yield (
            f"rankings of so many completions that their {report.contents.unlisted_pairs:,} pairs are not made, at "
            f"most {MOST_IMPLIED_PAIRS:,} of a ranking: no figure of pairs counts them, and objectives that learn from "
            "pairs quarantine such rows; train with plackett_luce or regression"
        )
    if report.without_prompt:
        yield (
            f"{report.without_prompt:,} rows have no prompt: they count as one prompt in splits and intervals; "
            "give a prompt column, or whole conversations as messages"
        )
    if report.repeated_prompts:
        yield (
            f"in {report.repeated_prompts:,} rows every completion begins with the whole prompt, which the model would "
            "read twice: leave it out of the completions"
        )
    cut = report.truncation
    if cut is not None and cut.truncated:
        yield (
            f"{cut.truncated:,} of {cut.sequences:,} sequences are longer than {cut.max_length} tokens: "
            "the oldest part of their prompt is cut"
        )
    if cut is not None and cut.too_long:
        yield f"{cut.too_long:,} rows have a completion longer than {cut.max_length} tokens: training quarantines them"
    if cut is not None and cut.refused:
        yield f"{cut.refused:,} rows are refused by the chat template: training quarantines them"
    if cut is not None and cut.identical:
        yield f"{cut.identical:,} pairs are identical after truncation: training drops them"
