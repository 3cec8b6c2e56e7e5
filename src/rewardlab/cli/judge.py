"""``rewardlab judge``: an LLM behind any OpenAI-compatible endpoint judges completions.

This file knows options, the progress bar and where output goes; the work is :mod:`rewardlab.judge`'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import typer

from rewardlab.cli.options import JsonOutput, RowFormat, Split
from rewardlab.errors import ConfigError, RewardLabError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from rewardlab.judge.chat import ChatClient, Usage
    from rewardlab.judge.event_loop import EventLoop
    from rewardlab.judge.forgery import ForgeryResult
    from rewardlab.judge.judge import Judge
    from rewardlab.judge.outputs import Preferences
    from rewardlab.judge.running import JudgedFile, Progress

_TOLD_RETRIES = 5  # failed attempts that are told in words; all are counted


def judge(
    data: Annotated[
        list[str], typer.Option(metavar="FILE", help="Rows in any format, labelled or not. Can be given several times.")
    ],
    base_url: Annotated[str, typer.Option("--base-url", metavar="URL", help="The endpoint; it mostly ends in /v1.")],
    model: Annotated[str, typer.Option(metavar="M", help="The judge's name at the endpoint.")],
    output: Annotated[Path, typer.Option(metavar="OUT", help="The JSON Lines file to write, a row for each item.")],
    mode: Annotated[
        str,
        typer.Option(
            help="pairwise (which of two is better), listwise (2 to 8 in order), rating (1 to 10) or steps (which are "
            "wrong)."
        ),
    ] = "pairwise",
    prompt: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="What is asked: a built-in prompt or a YAML file."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="The endpoint's key; better given by the environment, see above.",
        ),
    ] = None,
    preferences: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the verdicts as data for `rewardlab train`.")
    ] = None,
    keep_ties: Annotated[bool, typer.Option("--keep-ties", help="--preferences: ties too, as ties.")] = False,
    attack: Annotated[
        int | None,
        typer.Option(
            "--attack",
            min=1,
            metavar="N",
            help="Also forge verdicts inside the losers of N comparisons: 14 questions each.",
        ),
    ] = None,
    self_name: Annotated[
        str | None,
        typer.Option(
            "--self", metavar="NAME", help="Which of the rows' systems the judge is: measures self-preference."
        ),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(min=0.0, metavar="W", help="Ranking: weight of a prior, for each system half won and half lost."),
    ] = None,
    max_items: Annotated[
        int | None,
        typer.Option("--max-items", min=1, metavar="N", help="Judge N items at most, drawn; of ratings whole rows."),
    ] = None,
    max_pairs: Annotated[
        int | None,
        typer.Option("--max-pairs", min=1, metavar="N", help="Most comparisons of a row without preferences; 10."),
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Most questions under way at once.")] = 8,
    timeout: Annotated[float, typer.Option(metavar="S", help="Longest time for one attempt, in seconds.")] = 120.0,
    max_tokens: Annotated[
        int | None,
        typer.Option("--max-tokens", min=1, metavar="N", help="Longest answer; by default 1024, of steps 2048."),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option("--max-cost", metavar="X", help="Stop asking before it costs more; needs both prices."),
    ] = None,
    price_in: Annotated[
        float | None, typer.Option("--price-in", metavar="P", help="Price of a million prompt tokens.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", metavar="P", help="Price of a million tokens of answers.")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option("--max-calls", min=1, metavar="N", help="Stop asking after N questions.")
    ] = None,
    max_abstained: Annotated[
        float,
        typer.Option(
            "--max-abstained", min=0, max=1, metavar="X", help="Stop if, after 20 items, a larger share has no verdict."
        ),
    ] = 0.5,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where answers are kept, by request; OUT.cache.sqlite by default."),
    ] = None,
    schema: Annotated[
        bool | None,
        typer.Option("--schema/--no-schema", help="Ask for JSON by a schema; by default where the endpoint can."),
    ] = None,
    no_logprobs: Annotated[
        bool, typer.Option("--no-logprobs", help="Do not ask for log-probabilities, and so for no probability.")
    ] = False,
    extra_body: Annotated[
        str | None,
        typer.Option("--extra-body", metavar="JSON", help="Further fields of every request, of the server's own."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws, and sent with every question.")] = 0,
    json_output: JsonOutput = False,
    format: RowFormat = "auto",
    split: Split = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an interrupted run left.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files to write if they exist.")] = False,
) -> None:
    """Let an LLM judge completions, and say how far it can be believed.

    Comparisons and rankings are always asked for in both orders: where the two disagree it is a tie, and where either
    gives no verdict there is none. An abstention is never a number: it is counted, by kind.

    Of labelled rows the agreement with people is measured, of comparisons also position, length and self-preference; of
    rows that name their systems win rates and a ranking (docs/judge.md, docs/judge_quality.md). Prompts:
    docs/judge_prompts.md. The key is read from REWARDLAB_JUDGE_KEY, at OpenAI's own address also from OPENAI_API_KEY.

    A run that was killed goes on where it was when the same command is given again; answers are kept in a cache, so
    that no question is paid for twice.

    [dim]Examples:[/dim]

        rewardlab judge --data pairs.jsonl --base-url http://127.0.0.1:8000/v1 --model Qwen3-32B --output verdicts.jsonl

        rewardlab judge --data pairs.jsonl --base-url http://127.0.0.1:11434/v1 --model llama3.1 --output verdicts.jsonl

        rewardlab judge --data pairs.jsonl --base-url https://api.openai.com/v1 --model gpt-4.1-mini --output verdicts.jsonl --max-cost 2 --price-in 0.4 --price-out 1.6

        rewardlab judge --data samples.jsonl --base-url http://127.0.0.1:8000/v1 --model Qwen3-32B --output verdicts.jsonl --mode listwise --preferences preferences.jsonl

        rewardlab judge --data pairs.jsonl --base-url http://127.0.0.1:8000/v1 --model Qwen3-32B --output verdicts.jsonl --attack 50
    """  # noqa: E501  # an example is one line
    from rich.console import Console

    from rewardlab.judge.cache import ReplyCache
    from rewardlab.judge.client import OpenAIClient
    from rewardlab.judge.event_loop import EventLoop
    from rewardlab.judge.items import MAX_PAIRS
    from rewardlab.judge.judge import Judge
    from rewardlab.judge.outputs import preferences_of
    from rewardlab.judge.running import check_output, judge_file, used_between
    from rewardlab.judge.table import render_run, render_usage
    from rewardlab.scoring.partial import check_written

    _check(mode, attack, self_name, prior, max_pairs, preferences, keep_ties, overwrite)
    check_output(data, output, split=split, overwrite=overwrite)
    cache = cache or output.with_name(output.name + ".cache.sqlite")
    written = {"the output": output, "the cache": cache}
    check_written(
        [*data, *([prompt] if prompt else [])],
        {**written, "the preference data": preferences} if preferences else written,
    )
    console = Console(stderr=True)
    body = _extra_body(extra_body)
    run = forged = None
    with ReplyCache(cache) as kept, EventLoop() as loop:
        client = OpenAIClient(
            model,
            base_url=base_url,
            api_key=api_key,
            concurrency=concurrency,
            timeout_s=timeout,
            max_cost=max_cost,
            max_calls=max_calls,
            prices=_prices(price_in, price_out),
            cache=kept,
            extra_body=body,
            on_retry=_teller(console),
        )
        try:
            asked = Judge(
                client,
                prompt=prompt,
                secret=kept.secret,
                max_tokens=max_tokens,
                seed=seed,
                schema=schema,
                logprobs=not no_logprobs,
            )
            with _bar(console, client) as update:
                run = judge_file(
                    asked,
                    data,
                    output,
                    loop=loop,
                    mode=mode,  # type: ignore[arg-type]  # checked above
                    max_pairs=max_pairs or MAX_PAIRS,
                    max_items=max_items,
                    concurrency=concurrency,
                    max_abstained=max_abstained,
                    format=format,
                    split=split,
                    settings={"base_url": _address(base_url), "extra_body_sha256": _secret(body)},
                    restart=restart,
                    overwrite=overwrite,
                    on_progress=update,
                )
            used = client.usage
            _require_verdicts(run)
            made = None
            if preferences is not None:
                made = preferences_of(run.reading.groups, run.asked.mode, run.judged, keep_ties=keep_ties)
                if made.rows:
                    made.write(preferences)
            found, shown, remarks = _findings(run, used, self_name, prior or 0.0, seed)
            notes = [*client.notes, *_served(asked), *(made.notes if made else ()), *remarks]
            _tell(console, run, preferences, made)
            if not json_output:
                Console().print(render_run(run, used), *shown)
            if attack is not None:
                # The run is finished and told: whatever becomes of the attack, it is not lost.
                forged, why = _attacked(console, asked, run, loop, attack, concurrency, seed)
                notes += why
        except KeyboardInterrupt:
            kept_at = f"beside {output}: repeat the command to go on" if run is None else f"in {output}"
            typer.echo(f"what was judged is kept {kept_at}", err=True)
            raise
        finally:
            loop.run(client.close())
        notes += [note for note in (*client.notes, *_served(asked)) if note not in notes]
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    of_attack = used_between(used, client.usage)
    if json_output:
        told = {**run.to_dict(), "usage": client.usage.to_dict(), **found}
        if attack is not None:
            told["usage_by_part"] = {"run": used.to_dict(), "attack": of_attack.to_dict()}
            told["forgery"] = None if forged is None else forged.to_dict()
        if made is not None:
            told["preferences"] = {"file": str(preferences), "rows": len(made.rows), "left_out": dict(made.left_out)}
        typer.echo(json.dumps({**told, "notes": notes}, indent=2, allow_nan=False))
    elif attack is not None:
        from rich.console import Group

        from rewardlab.judge.table import render_forgery

        parts = [render_usage("the attack", of_attack), render_usage("in all", client.usage)]
        Console().print(Group(*([] if forged is None else [render_forgery(forged)]), *parts))


def _check(
    mode: str,
    attack: int | None,
    self_name: str | None,
    prior: float | None,
    max_pairs: int | None,
    preferences: Path | None,
    keep_ties: bool,
    overwrite: bool,
) -> None:
    """Refuse at once options that cannot be meant."""
    if mode not in ("pairwise", "listwise", "rating", "steps"):
        raise ConfigError(f"no mode is called {mode!r}", hint="one of: pairwise, listwise, rating, steps")
    for option, value, modes, what in (
        ("--attack", attack, ("pairwise",), "comparisons"),
        ("--max-pairs", max_pairs, ("pairwise",), "comparisons"),
        ("--self", self_name, ("pairwise", "listwise"), "comparisons"),
        ("--prior", prior, ("pairwise", "listwise"), "comparisons of systems"),
    ):
        if value is not None and mode not in modes:
            raise ConfigError(
                f"{option} is for {what}, and the mode is {mode}", hint=f"--mode {' or '.join(modes)}, or leave it out"
            )
    if keep_ties and preferences is None:
        raise ConfigError("--keep-ties is for preference data", hint="name its file, --preferences FILE")
    if preferences is None:
        return
    if preferences.is_dir() or preferences.suffix.lower() != ".jsonl":
        raise ConfigError(f"preference data is written as JSON Lines, not as {preferences}", hint="name it *.jsonl")
    if preferences.exists() and not overwrite:
        raise ConfigError(f"the file {preferences} exists already", hint="give another one, or --overwrite")


def _prices(price_in: float | None, price_out: float | None) -> tuple[float, float] | None:
    if price_in is None and price_out is None:
        return None
    if price_in is None or price_out is None:
        raise ConfigError(
            "one of the two prices is missing", hint="--price-in P and --price-out P, each of a million tokens"
        )
    return price_in, price_out


def _extra_body(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body is no JSON: {error}", hint="""such as '{"top_k": 1}'""") from None
    if not isinstance(body, dict):
        raise ConfigError(f"--extra-body must be a JSON object, got {text}", hint="""such as '{"top_k": 1}'""")
    return body


def _address(base_url: str) -> str:
    """The address without the password and the query, in which a key may stand."""
    parts = urlsplit(base_url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")).rstrip("/")


def _secret(body: dict[str, Any]) -> str | None:
    """What tells one body from another, and says nothing of what may be a key."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest() if body else None


def _served(judge: Judge) -> list[str]:
    """A note where the answers do not come from one model."""
    served = judge.served_models
    return [f"the answers say that they are of {len(served)} models: {', '.join(served)}"] if len(served) > 1 else []


def _attacked(
    console: Console, judge: Judge, run: JudgedFile, loop: EventLoop, most: int, concurrency: int, seed: int
) -> tuple[ForgeryResult | None, list[str]]:
    """How far forged verdicts move the judge, or a note that says why this is not known."""
    from rich.progress import Progress as Bar

    from rewardlab.judge.forgery import measure_forgery

    try:
        with Bar(console=console, transient=True) as bar:
            task = bar.add_task("attacking", total=None)
            found = measure_forgery(
                judge,
                run.reading.groups,
                run.judged,
                loop=loop,
                most=most,
                concurrency=concurrency,
                seed=seed,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except RewardLabError as error:
        return None, [f"the attack has no result: {error.message}"]
    if not found.unasked:
        return found, []
    of = found.attacked * (len(found.forgeries) + 1)
    return found, [f"a limit left {found.unasked:,} of the attack's {of:,} comparisons unasked"]


def _teller(console: Console) -> Callable[[str], None]:
    """Tells of the first failed attempts; afterwards they are only counted."""
    told = 0

    def tell(words: str) -> None:
        nonlocal told
        told += 1
        if told <= _TOLD_RETRIES:
            console.print(words, style="dim", markup=False, highlight=False, soft_wrap=True)
        elif told == _TOLD_RETRIES + 1:
            console.print("further failed attempts are counted and not told", style="dim")

    return tell


@contextmanager
def _bar(console: Console, client: ChatClient) -> Iterator[Callable[[Progress], None]]:
    """A progress bar with what has no verdict and what it costs; its remaining time counts this run's work alone."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("judging"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    with Bar(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("judging", total=None, told="", start=False)

        def update(progress: Progress) -> None:
            (state,) = bar.tasks
            if not state.started:
                bar.update(task, completed=progress.done, total=progress.total)
                bar.start_task(task)
            usage = client.usage
            told = f"{progress.abstained:,} abstained" if progress.abstained else ""
            told += "" if usage.cost is None else f" cost {usage.cost:.4g}"
            bar.update(task, completed=progress.done, told=told.strip())

        yield update


def _require_verdicts(run: JudgedFile) -> None:
    """Stop where nothing has a verdict: there is nothing to measure, and something to mend."""
    from rewardlab.judge.verdicts import abstention_of

    if run.abstained.total() < len(run.judged):
        return
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in run.abstained.most_common())
    first = abstention_of(run.judged[0][1])
    raise RewardLabError(
        f"none of {len(run.judged):,} items has a verdict ({kinds}); the first: {first.message if first else ''}",
        hint=f"all are in {run.output}; mend that and repeat the command with --overwrite",
    )


def _tell(console: Console, run: JudgedFile, preferences: Path | None, made: Preferences | None) -> None:
    """What was done, and what one should look at, a line each."""

    def tell(line: str, style: str | None = None) -> None:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    resumed = f" ({run.resumed:,} of them by an interrupted run)" if run.resumed else ""
    tell(f"judged {len(run.judged):,} items{resumed} in {run.seconds:.1f} s: {run.output}")
    if run.reading.bad_rows:
        tell(f"warning: {run.reading.left_out()}", "yellow")
    if run.items.left_out:
        tell("not asked about: " + _counts(run.items.left_out))
    if run.abstained:
        tell(f"warning: without a verdict: {_counts(run.abstained)}", "yellow")
    if made is not None:
        left = f"; left out: {_counts(made.left_out)}" if made.left_out else ""
        tell(f"{len(made.rows):,} rows of preference data: {preferences}{left}")
        if not made.rows:
            tell(f"WARNING: no verdict is a preference: {preferences} is NOT WRITTEN", "bold red")


def _counts(counts: Any) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _findings(
    run: JudgedFile, usage: Usage, self_name: str | None, prior: float, seed: int
) -> tuple[dict[str, Any], list[RenderableType], tuple[str, ...]]:
    """What a run says, as JSON and as tables, and notes on it."""
    from rewardlab.judge import findings, table
    from rewardlab.judge.quality_table import render_quality, render_systems

    groups, judged = run.reading.groups, run.judged
    if run.asked.mode == "rating":
        rated = findings.rating_findings(groups, judged, seed=seed)
        return {"ratings": rated.to_dict()}, [table.render_ratings(rated)], rated.notes
    if run.asked.mode == "steps":
        errors = findings.first_error_findings(groups, judged, seed=seed)
        return (
            ({}, [], ())
            if errors is None
            else ({"first_errors": errors.to_dict()}, [table.render_first_errors(errors)], ())
        )
    of_pairs = run.asked.mode == "pairwise"
    compared = findings.comparison_findings(
        groups,
        judged,
        usage=usage if of_pairs else None,
        seconds=run.seconds if of_pairs else None,
        self_name=self_name,
        prior=prior,
        seed=seed,
    )
    shown = [render_quality(compared.quality)]
    if compared.win_rates:
        shown.append(render_systems(compared.ranking, compared.win_rates))
    return compared.to_dict(), shown, compared.notes
