"""Live drift: what a server has scored since the last look, held against the reference set.

The server counts (``GET /v1/distributions``); two readings make a window. It is compared with the newest reference
snapshot of the same model (``rewardlab monitor DIR --reference FILE``), or without one, scores alone, with the
quantiles in the model's contract. Live rows have no labels, so this says that something changed, never whether the
model is right.

An ensemble's disagreement, which rises where the policy has left what the members were trained on, is its own watch:
the sign of over-optimisation that needs neither labels nor a second model (Coste et al. 2024, "Reward Model Ensembles
Help Mitigate Overoptimization").
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rewardlab.data.fingerprints import completions_fingerprint
from rewardlab.errors import DataError
from rewardlab.evaluation.readable import readable
from rewardlab.evaluation.scorers import is_ensemble
from rewardlab.metrics.divergence import Divergence, diverge
from rewardlab.metrics.histograms import DISAGREEMENT_GRID, TOKEN_GRID, Histogram, expected_shares, score_grid
from rewardlab.modeling.contract import load_contract
from rewardlab.modeling.loading import fingerprint_of
from rewardlab.monitoring.figures import contract_sha256, settings_of, utc_time
from rewardlab.monitoring.history import History
from rewardlab.monitoring.snapshots import Finding, Snapshot
from rewardlab.monitoring.thresholds import Thresholds
from rewardlab.scoring.names import require_models, short_name
from rewardlab.scoring.scorer import Scorer
from rewardlab.types import PromptGroup

ROUTE = "/v1/distributions"

_MOST_BYTES = 4 << 20  # of an answer, which has some 10,000

WATCHES = {
    "scores": "scores",
    "tokens": "lengths",
    "disagreement": "the members' disagreement",
}
"""What a server counts, and what it is called."""


def run_reference(
    scorer: Scorer,
    groups: Sequence[PromptGroup],
    history: History,
    *,
    data: Sequence[str],
    model: str,
    progress: bool = False,
    now: datetime | None = None,
) -> Snapshot:
    """Count how scores, lengths and disagreements of a reference set are distributed, and store it.

    Args:
        scorer: The model that the server serves; gives raw scores.
        groups: The reference set: completions as the policy wrote them when all was well; labels are not used.
        history: Where to.
        data: Names of the files.
        model: What the model is called.
        progress: Show a progress bar on stderr.
        now: Time of the snapshot; by default the present.

    Raises:
        DataError: A row that the model cannot read.
    """
    found = readable(scorer.encoder, groups)
    if found.left_out:
        error = found.left_out[0][1]
        raise DataError(
            f"{len(found.left_out):,} of {len(groups):,} reference rows cannot be scored: {error.message}",
            hint=error.hint,
        )
    encoded = [item for item in scorer.encoder.encode_many(groups) if not isinstance(item, DataError)]
    disagreements: list[list[float]] = []
    if is_ensemble(scorer):
        scores, disagreements = scorer.score_groups_disagreement(groups, progress=progress)  # type: ignore[attr-defined]
    else:
        scores = scorer.score_groups(groups, progress=progress)
    reference = None if scorer.contract is None or is_ensemble(scorer) else scorer.contract.reference
    grid = score_grid(*(() if reference is None else (reference.mean, reference.std)))
    histograms = {
        "scores": Histogram.of(grid, [score for of_group in scores for score in of_group]),
        "tokens": Histogram.of(TOKEN_GRID, [length for item in encoded for length in item.lengths]),
        "disagreement": Histogram.of(DISAGREEMENT_GRID, [one for of_group in disagreements for one in of_group]),
    }
    snapshot = Snapshot(
        kind="reference",
        at=utc_time(now),
        model=model,
        fingerprint=scorer.fingerprint,
        contract_sha256=contract_sha256(scorer),
        data=tuple(data),
        data_sha256=completions_fingerprint(groups),
        settings=settings_of(scorer),
        metrics={
            name: {"num": one.num, "mean": one.mean, "std": one.std, **one.to_dict()}
            for name, one in histograms.items()
        },
    )
    return history.record(snapshot, lambda _, new: [_stored(histograms["scores"])])


def _stored(scores: Histogram) -> Finding:
    return Finding("scores", "ok", f"stored: {scores.num:,} reference scores, which live windows are held against")


def run_live(
    url: str,
    model: str,
    history: History,
    thresholds: Thresholds,
    *,
    api_key: str | None = None,
    timeout_s: float = 30.0,
    now: datetime | None = None,
) -> Snapshot:
    """Read what a server has counted, and compare what is new since the last look with the reference.

    Args:
        url: The server's address.
        model: The folder or hub id that it should serve; of a folder, its contract's quantiles stand in for a
            reference snapshot where there is none.
        history: Where earlier readings and the reference are, and this one goes.
        thresholds: The limits.
        api_key: The server's key.
        timeout_s: How long it may take to answer.
        now: Time of the snapshot; by default the present.

    Returns:
        The snapshot. Its metrics hold, for each of ``scores``, ``tokens`` and ``disagreement``: the ``window`` (a
        histogram), the reading itself (``reading``), and ``psi``, ``ks``, ``ks_p``, ``js``, ``chi2_p`` where it was
        compared. A window with fewer than ``fewest_scores`` scores is told and not stored (its number is None), so
        that it goes on growing.

    Raises:
        DataError: The server cannot be reached, refuses, has no model, or answers something else.
    """
    require_models(model)
    record = _read(url, api_key, timeout_s)
    reading = _histograms(record, url)
    snapshot = Snapshot(
        kind="live",
        at=utc_time(now),
        model=short_name(model),
        fingerprint=str(record["fingerprint"]),
        contract_sha256=None,
        data=(url,),
        data_sha256=None,
        settings={"id": record["id"], "since": record["since"]},
    )
    try:
        # The window is what is new since the last look, so nobody may look between that and the storing.
        return history.append(lambda opened: _seen(opened, snapshot, reading, model, thresholds))
    except _TooFewError as few:
        return few.snapshot


class _TooFewError(Exception):
    """The window is too small; whoever raises this inside the history's lock has nothing stored."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


def _seen(
    history: History, snapshot: Snapshot, reading: Mapping[str, Histogram], model: str, thresholds: Thresholds
) -> Snapshot:
    """The snapshot with its window, what it is held against, and what is made of it."""
    earlier = history.snapshots("live", fingerprint=snapshot.fingerprint, pairs=False)
    windows = _windows(earlier, snapshot, reading)
    references = history.snapshots("reference", pairs=False)
    findings = [_of_model(references, model, snapshot), *_of_counting(earlier, snapshot)]
    if windows["scores"].num < thresholds.fewest_scores:
        few = f"{windows['scores'].num:,} scores since the last look, fewer than {thresholds.fewest_scores:,}"
        findings.append(Finding("scores", "learning", f"{few}: the window is left to grow, nothing is stored"))
        raise _TooFewError(_filled(snapshot, windows, reading, {}, findings))
    own = [one for one in references if one.fingerprint == snapshot.fingerprint]
    expected = _expected(own, model, windows)
    compared = {}
    for name, called in WATCHES.items():
        window = windows[name]
        if not window.num:
            continue
        if name not in expected and own:
            message = f"{called}: the reference was counted in other bins; store it again with --reference"
            findings.append(Finding(name, "warning", message))
            continue
        if name not in expected:
            hint = "rewardlab monitor DIR --reference FILE stores what they are held against"
            findings.append(Finding(name, "learning", f"{called}: there is no reference to hold them against; {hint}"))
            continue
        compared[name] = found = diverge(expected[name][0], window.counts, num_reference=expected[name][1])
        findings.append(_judged(name, called, found, window, expected[name][2], thresholds))
    return _filled(snapshot, windows, reading, compared, findings)


def _windows(earlier: Sequence[Snapshot], new: Snapshot, reading: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """What was counted since the last stored look at the same counts; all of it where counting began anew."""
    same = [one for one in earlier if one.settings.get("id") == new.settings["id"]]
    if not same:
        return dict(reading)
    before = {name: Histogram.from_dict(same[-1].metrics[name]["reading"]) for name in WATCHES}
    try:
        return {name: reading[name] - before[name] for name in WATCHES}
    except ValueError as error:
        raise DataError(
            f"{new.data[0]} has counted less than at snapshot {same[-1].number}: {error}",
            hint="is it one server, or a proxy in front of several? name one of them",
        ) from error


def _of_counting(earlier: Sequence[Snapshot], new: Snapshot) -> list[Finding]:
    """That counts were lost: a server that starts again, or changes its model, counts from nothing."""
    if not earlier or any(one.settings.get("id") == new.settings["id"] for one in earlier):
        return []
    since, last = new.settings["since"], earlier[-1].at
    message = f"the server counts anew since {since}: what it scored after the look of {last} and before is not seen"
    return [Finding("counting", "warning", message)]


def _filled(
    snapshot: Snapshot,
    windows: Mapping[str, Histogram],
    reading: Mapping[str, Histogram],
    compared: Mapping[str, Divergence],
    findings: Sequence[Finding],
) -> Snapshot:
    metrics = {
        name: {
            "num": windows[name].num,
            "mean": windows[name].mean,
            "std": windows[name].std,
            "window": windows[name].to_dict(),
            "reading": reading[name].to_dict(),
            **(compared[name].to_dict() if name in compared else {}),
        }
        for name in WATCHES
    }
    return replace(snapshot, metrics=metrics, findings=tuple(findings))


_Expected = tuple[Sequence[float], int | None, float | None]  # counts or shares, values behind them, their mean


def _expected(references: Sequence[Snapshot], model: str, windows: Mapping[str, Histogram]) -> dict[str, _Expected]:
    """What each distribution is held against, where it was counted in the same bins."""
    if references:
        known = {name: Histogram.from_dict(references[-1].metrics[name]) for name in WATCHES}
        return {
            name: (one.counts, None, one.mean)
            for name, one in known.items()
            if one.num and one.edges == windows[name].edges
        }
    contract = load_contract(model) if Path(model).is_dir() else None
    reference = None if contract is None else contract.reference
    if reference is None or not reference.quantiles:
        return {}
    shares = expected_shares(windows["scores"].edges, reference.quantiles)
    return {"scores": (shares.tolist(), reference.num_scores, reference.mean)}


def _judged(
    name: str, called: str, found: Divergence, window: Histogram, reference_mean: float | None, limits: Thresholds
) -> Finding:
    """What a divergence says: a difference counts where it is more than chance, and alarms where it is large."""
    moved = ""
    if window.mean is not None and reference_mean is not None:
        moved = f", mean {window.mean:.4g} after {reference_mean:.4g}"
    figures = f"PSI {found.psi:.3f}, KS {found.ks:.3f} (p {found.ks_p:.2g}), Jensen-Shannon {found.js:.3f}"
    told = f"{called} of {window.num:,} items: {figures}{moved}"
    real = min(found.ks_p, found.chi2_p) < limits.ks_p
    rises = window.mean is not None and reference_mean is not None and window.mean > reference_mean
    if real and found.psi >= limits.psi_alarm:
        why = "; the policy may have left what the members were trained on" if name == "disagreement" and rises else ""
        return Finding(
            name, "alarm", f"{told}: no longer the reference's distribution{why}", found.psi, limits.psi_alarm
        )
    if real and found.psi >= limits.psi_warning:
        return Finding(name, "warning", f"{told}: moving away from the reference", found.psi, limits.psi_alarm)
    return Finding(name, "ok", told, found.psi, limits.psi_alarm)


def _of_model(references: Sequence[Snapshot], model: str, seen: Snapshot) -> Finding:
    """Whether the server serves what it should."""
    served = f"the server serves {seen.fingerprint[:16]}"
    if Path(model).is_dir():
        own = fingerprint_of(Path(model))
        if own != seen.fingerprint:
            message = f"{served}, and {model} is {own[:16]}: reload it, or name the folder that it serves"
            return Finding("model", "alarm", message)
        return Finding("model", "ok", f"{served}, which is {model}")
    # Of a hub id or an ensemble the fingerprint is only known once it is loaded, as it was for the reference.
    known = [one.fingerprint for one in references if one.model == seen.model]
    if not known:
        return Finding("model", "warning", f"{served}; whether that is {model} is not known before a --reference")
    if known[-1] != seen.fingerprint:
        message = f"{served}, and the reference is of {known[-1][:16]}: another model, or store its reference"
        return Finding("model", "alarm", message)
    return Finding("model", "ok", f"{served}, as when the reference was stored")


def _read(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """The server's answer, all of it within ``timeout_s``: a cron job must not hang."""
    address = url.rstrip("/") + ROUTE
    if not address.startswith(("http://", "https://")):
        raise DataError(f"{url}: not the address of a server", hint="such as http://127.0.0.1:8000")
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
    deadline = time.monotonic() + timeout_s
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            body = bytearray()
            while part := answer.read1(1 << 16):
                body += part
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer within {timeout_s:g} s")
                if len(body) > _MOST_BYTES:
                    raise ValueError(f"an answer of more than {_MOST_BYTES:,} bytes")
        record = json.loads(body)
    except urllib.error.HTTPError as error:
        hint = {401: "give its key: --api-key, or REWARDLAB_API_KEY", 404: "is it `rewardlab serve`, of this version?"}
        raise DataError(f"{address} answered {error.code} {error.reason}", hint=hint.get(error.code, "")) from error
    except (OSError, ValueError, RecursionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error  # urllib's own words around it say nothing more
        raise DataError(f"{address}: {reason}", hint="is the server there, and ready?") from error
    texts = [record.get(name) for name in ("id", "since")] if isinstance(record, dict) else [None]
    if not all(isinstance(text, str) for text in texts) or not {"fingerprint", *WATCHES} <= record.keys():
        raise DataError(f"{address} answered something else than counts", hint="is it `rewardlab serve`?")
    if record["fingerprint"] is None:
        raise DataError(f"{url} has loaded no model yet", hint="ask again when it is ready")
    return record


def _histograms(record: Mapping[str, Any], url: str) -> dict[str, Histogram]:
    found = {}
    for name in WATCHES:
        try:
            found[name] = Histogram.from_dict(record[name])
        except DataError as error:
            raise DataError(f"{url}{ROUTE}, {name}: {error.message}", hint="is it `rewardlab serve`?") from error
    return found
