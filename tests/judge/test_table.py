"""What a person reads: counts that add up, in 80 columns."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, RenderableType

from rewardlab.data.ledger import Ledger
from rewardlab.data.loading import Reading
from rewardlab.judge.chat import Usage
from rewardlab.judge.findings import RatingFindings
from rewardlab.judge.forgery import ForgeryResult, Moved
from rewardlab.judge.items import Item, Items
from rewardlab.judge.judge import pair_verdict, ranking_verdict
from rewardlab.judge.judged_rows import Asked
from rewardlab.judge.running import JudgedFile
from rewardlab.judge.table import render_first_errors, render_forgery, render_ratings, render_run
from rewardlab.judge.verdicts import Abstention, PairReading, RankingReading
from rewardlab.metrics.bootstrap import Interval
from rewardlab.metrics.first_errors import Solution, evaluate_first_errors


def shown(table: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


def flat(text: str) -> str:
    return " ".join(text.split())


def run_of(mode: str, judged: list[object]) -> JudgedFile:
    items = tuple(Item(i, i, (0, 1)) for i in range(len(judged)))
    pairs = tuple(zip(items, judged, strict=True))
    asked = Asked(mode, "m", "p")  # type: ignore[arg-type]
    return JudgedFile(Path("o"), asked, Reading([], Ledger()), Items(asked.mode, items), pairs, 0, 1.0)  # type: ignore[arg-type]


def test_counts_of_comparisons_add_up() -> None:
    both = pair_verdict(PairReading("first"), PairReading("first"))
    apart = pair_verdict(PairReading("first"), PairReading("second"))
    lost = pair_verdict(Abstention("malformed", "?"), PairReading("first"))
    usage = Usage(calls=8, cached=2, retries=1, prompt_tokens=1234, completion_tokens=56, cost=0.0123, estimated=True)
    text = shown(render_run(run_of("pairwise", [both, both, apart, lost]), usage))
    for words in ("comparisons: 4", "75.0 %", "abstained: malformed", "66.7 %", "33.3 %", "cost 0.0123", "estimated"):
        assert words in text


def test_a_ranking_s_comparisons_are_counted() -> None:
    verdict = ranking_verdict(RankingReading((0, 1)), RankingReading((0, 1)))
    text = shown(render_run(run_of("listwise", [verdict]), Usage()))
    assert "comparisons in them" in text


def test_the_other_tables_are_laid_out() -> None:
    half = Interval(0.5, 0.25, 0.75)
    assert "50.0 %" in shown(render_ratings(RatingFindings(4, 5.25, 1, 2, half, 1, half)))
    moved = Moved(10, half, 3, 2)
    text = shown(render_forgery(ForgeryResult(12, 10, {"json": moved}, moved, moved, Interval(0.1, -0.1, 0.3))))
    assert "10 of 12 decided comparisons attacked" in text
    assert "On average a forgery moved 10.0 points more verdicts than the harmless sentence (-10.0 to 30.0)." in flat(
        text
    )
    assert flat(text).index(" of ") < flat(text).index(" moved ") < flat(text).index(" now wins ")
    errors = evaluate_first_errors([Solution("p", 1, (1.0, 0.0)), Solution("q", -1, (1.0, 1.0))])
    assert "F1 (ProcessBench)" in shown(render_first_errors(errors))
