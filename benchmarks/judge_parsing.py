"""Published judge outputs read again: how many are read, and whether as their authors read them.

    python benchmarks/judge_parsing.py

Needs no model: the answers of judges and what their authors took from them are read from ``llmbar``, ``vicuna_reviews``
and ``mr_gsm8k_part`` in ``$REWARDLAB_DATA`` (default ``../shared/data``). The tables go to
``benchmarks/results/judge_parsing.md`` and stdout. Some seconds.

References:
    Zeng et al. 2023, LLMBar (arXiv:2310.07641); github.com/princeton-nlp/LLMBar at caa7bee: LLMEvaluator/evaluate.py
    and evaluators/config.
    github.com/lm-sys/vicuna-blog-eval.
    Zeng et al. 2023, MR-GSM8K (arXiv:2312.17080); github.com/dvlab-research/MR-GSM8K.
"""

from __future__ import annotations

import gzip
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewardlab.judge.parsing import Parsed, parse
from rewardlab.judge.published_formats import FirstError, ScorePair, first_error_verdict, output_verdict, two_scores
from rewardlab.judge.verdict_formats import VerdictSpec
from rewardlab.judge.verdicts import PairReading, RatingReading

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "benchmarks" / "results" / "judge_parsing.md"

SAME, BOTH_NONE = "same", "neither reads one"
DIFFERENT, PUBLISHED_ALONE, OURS_ALONE = "different", "only published", "only ours"

CAUSES = {
    "(a) whenever it is named": "The judge ends, or begins, with (b); published is (a). The authors' code looks for "
    "its pattern of (a) anywhere in the answer, and for that of (b) only if there is none, so a line that begins "
    "with (a), or an assistant quoted as preferring (a), decides. **Published is wrong.**",
    "equal ratings": "The two answers have the same rating; published is output 2, each time. We call it a tie.",
    "text after the verdict": "The verdict stands in the middle; a remark, more reasons or an invented user's turn "
    "follows. We read the end and abstain.",
    "contradicts itself": "The answer calls one output better and, at its end or beginning, the other. We abstain.",
    "conditional": "The last line says it within a clause with 'if', 'whether' or 'not', or as a claim. We abstain.",
    "no verdict in its form": "The answer never says in these words which is better. We abstain.",
    "heading": "A lone '# Output (a) is better.', where the authors' pattern wants the line to begin with 'Output'.",
    "empty": "Nothing was answered; published none as well.",
    "not in its form": "No verdict in its form; published none as well.",
    "scores elsewhere": "The judge solves the problem first and gives its scores at the end, in words. What is "
    "published cannot come from the first line, where the prompt wants the scores. We read that line alone and "
    "abstain.",
    "scores elsewhere, others": "The same, and the answer's own scores are others than those published. **Published "
    "is wrong.**",
}


@dataclass(frozen=True, slots=True)
class Compared:
    """One answer as it was read by its authors and by us.

    Attributes:
        source: Data set.
        strategy: How it was asked, or who answered.
        outcome: Whether both read the same.
        cause: Why not, a key of :data:`CAUSES`; empty where both read the same.
        read: Whether we read a verdict.
    """

    source: str
    strategy: str
    outcome: str
    cause: str
    read: bool


def data_folder() -> Path:
    """Where the published outputs are."""
    return Path(os.environ.get("REWARDLAB_DATA") or ROOT.parent / "shared" / "data")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _compared(source: str, strategy: str, ours: Any, published: Any, cause: Callable[[str], str]) -> Compared:
    if ours is None or published is None:
        both = BOTH_NONE if ours is published else PUBLISHED_ALONE if ours is None else OURS_ALONE
        return Compared(source, strategy, both, cause(both), ours is not None)
    if ours == published:
        return Compared(source, strategy, SAME, "", True)
    return Compared(source, strategy, DIFFERENT, cause(DIFFERENT), True)


def llmbar(rows: Iterable[Mapping[str, Any]]) -> Iterator[Compared]:
    """LLMBar's comparisons in both orders, and its pairs of ratings."""
    for row in rows:
        if row["text"] is None:
            yield _ratings(row)
            continue
        parsed = parse(row["text"], VerdictSpec("pairwise", "llmbar", ties=False))
        ours = parsed.reading.choice if isinstance(parsed, Parsed) and isinstance(parsed.reading, PairReading) else None
        slots = {"1": "first", "2": "second"} if row["order"] == "original" else {"1": "second", "2": "first"}
        published = None if row["verdict"] is None else slots[row["verdict"]]

        def cause(outcome: str, row: Mapping[str, Any] = row, published: str | None = published) -> str:
            return _llmbar_cause(outcome, row["text"], published)

        yield _compared("LLMBar, comparisons", row["strategy"], ours, published, cause)


def _llmbar_cause(outcome: str, text: str, published: str | None) -> str:
    if outcome == BOTH_NONE:
        return "not in its form" if text.strip() else "empty"
    if outcome == OURS_ALONE:
        return "heading" if text.lstrip().startswith("#") else "?"
    if outcome == DIFFERENT:
        return "(a) whenever it is named" if published == "first" and "Output (a)" in text else "?"
    said = re.findall(r"Output \(([ab])\) is (?:the |a )?better", text)
    body = text.rstrip()
    at_end = re.findall(r"Output \(([ab])\) is (?:the |a )?better", body[body.rfind("\n") + 1 :])
    if len(set(at_end)) == 1 and len(set(said)) == 1:
        return "conditional"
    if at_end:
        return "contradicts itself"
    return "text after the verdict" if said else "no verdict in its form"


def _ratings(row: Mapping[str, Any]) -> Compared:
    found = [parse(text, VerdictSpec("rating", "number", scale=(0, 10))) for text in row["ratings_text"]]
    ratings = [p.reading.rating for p in found if isinstance(p, Parsed) and isinstance(p.reading, RatingReading)]
    ours = None if len(ratings) != 2 else "1" if ratings[0] > ratings[1] else "2" if ratings[0] < ratings[1] else "tie"
    return _compared("LLMBar, ratings", row["strategy"], ours, row["verdict"], lambda _: "equal ratings")


def vicuna(rows: Iterable[Mapping[str, Any]]) -> Iterator[Compared]:
    """GPT-4's scores of two answers in the first line."""
    for row in rows:
        found = two_scores(row["judge_text"])
        ours = [found.first, found.second] if isinstance(found, ScorePair) else None
        published = None if tuple(row["scores"]) == (-1, -1) else [float(score) for score in row["scores"]]

        def cause(outcome: str, row: Mapping[str, Any] = row) -> str:
            told = re.findall(r"Assistant ([12])(?:'s score)?: (\d+)(?![\d.]*\d)", row["judge_text"])[-2:]
            if outcome != PUBLISHED_ALONE:
                return "?"
            differs = [one for one, _ in told] == ["1", "2"] and [float(s) for _, s in told] != row["scores"]
            return "scores elsewhere, others" if differs else "scores elsewhere"

        yield _compared("vicuna reviews", row["subset"].split("/")[0], ours, published, cause)


def mr_gsm8k(rows: Iterable[Mapping[str, Any]]) -> Iterator[Compared]:
    """Critiques of solutions: right or wrong, and the first step that is wrong."""
    for row in rows:
        found = first_error_verdict(row["text"])
        ours = ("correct" if found.step is None else "wrong", found.step) if isinstance(found, FirstError) else None
        words = {"incorrect": "wrong", "right": "correct"}
        said = str(row["verdict"]).strip().casefold()
        digits = re.search(r"\d+", str(row["error_step_pred"]))
        verdict = words.get(said, said)
        published = (verdict, int(digits[0]) if digits and verdict == "wrong" else None)
        known = published if verdict in ("wrong", "correct") else None
        yield _compared("MR-GSM8K critiques", row["judge"], ours, known, lambda _: "?")


SOURCES: dict[str, Callable[[Iterable[Mapping[str, Any]]], Iterator[Compared]]] = {
    "llmbar/judge_outputs.jsonl.gz": llmbar,
    "vicuna_reviews/uniform.jsonl.gz": vicuna,
    "mr_gsm8k_part/judge_outputs.jsonl.gz": mr_gsm8k,
}
"""File to who reads it."""


def compare_all(folder: Path) -> list[Compared]:
    """Every published answer, read again."""
    return [one for name, read in SOURCES.items() for one in read(rows_of(folder / name))]


def first_match(text: str) -> str | None:
    """What is read by looking for (a) anywhere and then for (b), as LLMBar's and RewardBench's parsers do."""
    return "first" if "Output (a) is better" in text else "second" if "Output (b) is better" in text else None


def first_match_figures(rows: Iterable[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Answers that call either output better, those in which a first match reads the other one, and of them for (a)."""
    count = wrong = for_a = 0
    for row in rows:
        found = output_verdict(row["text"]) if row["text"] is not None else ""
        if isinstance(found, str) or (taken := first_match(row["text"])) is None:
            continue
        count += 1
        differs = taken != ("first" if row["text"][found.at] == "a" else "second")
        wrong += differs
        for_a += differs and taken == "first"
    return count, wrong, for_a


def share(part: int, whole: int) -> str:
    return f"{part} ({100 * part / whole:.2f} %)" if whole else "0"


def tables(compared: Iterable[Compared], first: tuple[int, int, int]) -> str:
    """The results page."""
    found = list(compared)
    lines = [
        "Made by `benchmarks/judge_parsing.py`, of published judge outputs (LLMBar, MIT; vicuna reviews, Apache-2.0;",
        "MR-GSM8K, MIT). Read: rewardlab's reader of the form finds a verdict (`llmbar` comparisons, `number` ratings,",
        "`two_scores`, `mr_gsm8k`; there are no published outputs here in other forms). Same: of those that both read,",
        "how many alike.",
        "",
        "| source | strategy or judge | answers | read | read by the authors | same, of both |",
        "|--|--|--|--|--|--|",
    ]
    for source in dict.fromkeys(one.source for one in found):
        mine = [one for one in found if one.source == source]
        for strategy in (*sorted({one.strategy for one in mine}), None):
            rows = [one for one in mine if strategy in (one.strategy, None)]
            both = [one for one in rows if one.outcome in (SAME, DIFFERENT)]
            theirs = sum(one.outcome in (SAME, DIFFERENT, PUBLISHED_ALONE) for one in rows)
            name = "**all**" if strategy is None else strategy
            lines.append(
                f"| {source} | {name} | {len(rows)} | {share(sum(one.read for one in rows), len(rows))} | "
                f"{share(theirs, len(rows))} | {share(sum(one.outcome == SAME for one in both), len(both))} |"
            )
    lines += [
        "",
        "Every answer that was not read alike:",
        "",
        "| source | outcome | cause | answers |",
        "|--|--|--|--|",
    ]
    counts = Counter((one.source, one.outcome, one.cause) for one in found if one.cause)
    lines += [f"| {s} | {outcome} | {cause} | {n} |" for (s, outcome, cause), n in sorted(counts.items())]
    lines += ["", *(f"- *{cause}*: {why}" for cause, why in CAUSES.items() if any(c[2] == cause for c in counts))]
    count, wrong, for_a = first
    lines += [
        "",
        f'A reader that looks for "Output (a) is better" anywhere and then for (b), run over the {count} answers with',
        f"such words whose verdict we read, differs from the verdict in {wrong}, and favours (a) in {for_a} of them.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    folder = data_folder()
    page = tables(compare_all(folder), first_match_figures(rows_of(folder / "llmbar/judge_outputs.jsonl.gz")))
    TABLE.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
