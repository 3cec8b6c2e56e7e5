"""The page of what benchmarks/serving.py has found: one row per thing that it must show, from all parts on file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from measure import BUSY


def failed(found: Mapping[str, Any]) -> int:
    """Requests that have no right number."""
    return found["sent"] - found["statuses"].get("200", 0) + found["wrong"]


def findings(part: str, found: Mapping[str, Any]) -> list[list[str]]:
    """The rows of the page's table that a part gives: what was done, what came of it, what is wanted."""
    if part == "load":
        done = f"{found['rate']} requests/s for {found['seconds']:.0f} s"
        return [
            [f"{done}: without a right answer", f"{failed(found)} of {found['sent']:,}", "0"],
            [f"{done}: p50, p99", f"{found['p50']:.3f} s, {found['p99']:.3f} s", "p99 under 1 s"],
        ]
    if part == "knee":
        last = found["steps"][-1]
        why = f"at {last['rate']:.0f}/s p99 is {last['p99']:.2f} s and {last['failed']} fail"
        return [["the knee (p99 over 1 s, or a failure)", f"{found['knee']:.0f} requests/s; {why}", "-"]]
    if part == "posts":
        done = f"{found['sent']:,} requests, {found['in_flight']} in flight"
        kept = f"{found['lost']} lost, {found['wrong']} crossed, {failed(found)} without a right answer"
        largest = f"largest error {found['max_error']:.1e}"
        speed = f"{found['per_second']:.0f}/s, p99 {found['p99']:.2f} s"
        return [[done, kept, "0, 0, 0"], ["the same", f"{largest}; {speed}", "error under 1e-5"]]
    if part == "overload":
        done = f"{found['rate']:.0f} requests/s for {found['seconds']:.0f} s, ten times the knee"
        counts = ", ".join(f"{count:,} × {status}" for status, count in found["statuses"].items())
        bare, wrong = found["without_retry_after"], found["wrong"]
        return [
            [done, f"{counts}; {bare} without Retry-After; {wrong} wrong", "only 200 and 503"],
            ["the same: p99 of those answered", f"{found['p99']:.2f} s", f"under {2 * found['deadline']:.0f} s"],
            [
                "the same, from when the generator began to send",
                f"{found['answered_since_sent']['p99']:.2f} s; it was up to {found['generator_late_s']:.1f} s late",
                f"under {2 * found['deadline']:.0f} s",
            ],
            ["the same: p99 of those refused", f"{found['refused']['p99']:.2f} s", "-"],
            ["the same: most items that waited", f"{found['most_waiting']:,.0f}", "at most 4,096"],
            ["the same: until ten answers in turn within 1 s", f"{found['seconds_to_normal']:.1f} s", "5 s"],
        ]
    if part == "throughput":
        speeds = ", ".join(f"{name} {speed:.1f}" for name, speed in found["per_second"].items())
        rows = [[f"best of 8, {found['model']}, {found['items']} in flight: completions/s (median)", speeds, "-"]]
        for name, ratio in found["ratios"].items():
            rows.append([f"times `{name}`: minimum (median)", f"{ratio['min']:.2f} ({ratio['median']:.2f})", "4"])
        return rows
    slopes, memory, files = found["mb_per_minute"], found["memory_mb"], found["files"]
    done = f"{found['rate']:.0f} requests/s for {found['seconds']:.0f} s, 60% of the knee"
    return [
        [f"{done}: without a right answer", f"{failed(found)} of {found['sent']:,}", "0"],
        ["the same: memory of server, worker", f"{memory['server_mb']:,} MB, {memory['worker_mb']:,} MB", "-"],
        ["the same: growth a minute", f"{slopes['server_mb']} MB, {slopes['worker_mb']} MB", "-"],
        ["the same: open files before, most, after", f"{files['first']}, {files['most']}, {files['after']}", "flat"],
    ]


def write_page(results: Path, parts: Sequence[str]) -> str:
    """The page of all parts on file, in this order."""
    records = {
        part: json.loads(path.read_text(encoding="utf-8"))
        for part in parts
        if (path := results / "serving" / f"{part}.json").exists()
    }
    rows = [row for part, record in records.items() for row in findings(part, record["found"])]
    lines = ["Made by `benchmarks/serving.py`; how to read it is in that file.", ""]
    lines += ["| what | found | wanted |", "|--|--|--|", *(f"| {' | '.join(row)} |" for row in rows), ""]
    if "knee" in records:
        lines += ["## Up to the knee", "", "| requests/s | failed | p50 s | p99 s |", "|--|--|--|--|"]
        for step in records["knee"]["found"]["steps"]:
            lines.append(f"| {step['rate']:.0f} | {step['failed']} | {step['p50']:.3f} | {step['p99']:.3f} |")
        lines.append("")
    lines += ["## How it was made", ""]
    for part, record in records.items():
        machine, load_average = record["machine"], record["load_average"]
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines.append(
            f"- {part}: {machine['processor']}, {machine['cores']} cores, {record['threads']} thread for the model; "
            f"load average before {load_average}{' (NOT quiet)' if load_average > BUSY else ''}; {versions}; commit "
            f"{record['commit']}; {record['date']}; `{record['command']}`"
        )
    text = "\n".join(lines) + "\n"
    (results / "serving.md").write_text(text, encoding="utf-8")
    return text
