"""Does a checkpoint give the scores it promises, in every way it will be asked?

Each check scores the probes one way and compares with their stored scores (for models of others: with transformers' own
forward, one at a time): alone, padded on either side, in other batch sizes and orders, and through plain transformers
with nothing of rewardlab in between. ``rewardlab verify`` prints them all; loading a model for scoring runs the first
few.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rewardlab.data.encoding import Encoder
from rewardlab.data.template import template_hash
from rewardlab.errors import ContractError
from rewardlab.modeling.contract import Contract, Probe
from rewardlab.modeling.engine import Layout, score_sequences
from rewardlab.modeling.forward import model_inputs, pad, score_batch
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.loading import DTYPES, RewardModel, load_reward_model, quiet_transformers
from rewardlab.modeling.parity import LayoutChoice, choose_layout
from rewardlab.modeling.probes import probe_groups
from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# 1e-5 for scores around 1; float32 rounding grows with the score.
FLOAT32_TOLERANCE = 1e-5

_WAYS: dict[Layout, str] = {
    "tree": "packed, shared prefixes computed once",
    "packed": "packed without padding",
    "pruned": "padded, the last layer at the first token alone",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One way of scoring the probes, compared with the stored scores.

    Attributes:
        name: What was done.
        max_difference: Largest absolute difference (for ids: number of probes whose ids differ).
        tolerance: Largest difference allowed.
        ok: Whether it held.
    """

    name: str
    max_difference: float
    tolerance: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """All checks of one checkpoint.

    Attributes:
        path: The checkpoint.
        has_contract: Whether it carries a contract; without one the checks compare with transformers' own forward.
        num_probes: How many probes were scored.
        checks: The checks, in the order in which they ran.
        notes: What is worth knowing beside them.
    """

    path: str
    has_contract: bool
    num_probes: int
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every check held."""
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """As ``rewardlab verify --json`` prints it."""
        return {"ok": self.ok, **asdict(self)}


def make_probes(model: PreTrainedModel, encoder: Encoder) -> list[Probe]:
    """Score the built-in probes one at a time: what a contract stores.

    Args:
        model: The model as it stands in memory.
        encoder: Its encoder.
    """
    probes = []
    for group in probe_groups(encoder):
        ids = encoder.encode(group).sequences[0]
        (score,) = score_sequences(model, [ids])
        prompt = [dict(m) for m in group.prompt if not isinstance(m, str)]
        answer = {"role": "assistant", "content": group.completions[0]}
        probes.append(Probe([*prompt, answer], len(prompt), list(ids), score))
    return probes


def float32_tolerance(scores: Sequence[float]) -> float:
    """Tolerance for float32 scores of this size."""
    return FLOAT32_TOLERANCE * max(1.0, *(abs(score) for score in scores))


def layout_for_scoring(loaded: RewardModel, encoder: Encoder, engine: str = "auto") -> LayoutChoice:
    """The best layout that gives this model's scores, compared on the probes.

    Args:
        loaded: The model.
        encoder: What will encode for it; its maximum length decides whether windows matter.
        engine: As :func:`~rewardlab.modeling.parity.choose_layout`.
    """
    probes = loaded.contract.probes if loaded.contract else make_probes(loaded.model, encoder)
    ids = [probe.input_ids for probe in probes]
    # The first two are answers to one question.
    groups = [ids[:2], *([i] for i in ids[2:])]
    return choose_layout(loaded.model, groups, engine=engine, longest=encoder.max_length)


def require_contract_holds(loaded: RewardModel, layout: Layout = "padded") -> None:
    """The quick check at loading: ids, alone, all in one padded batch, and all in the layout that will be used.

    Raises:
        ContractError: Naming the check that failed and by how much.
    """
    if loaded.contract is None:
        return
    probes, tolerance = loaded.contract.probes, loaded.contract.tolerance(loaded.dtype)
    ids = [probe.input_ids for probe in probes]
    checks = [
        _check_ids(loaded, probes),
        _compare("alone", [score_sequences(loaded.model, [i])[0] for i in ids], probes, tolerance),
        _compare("in one padded batch", score_sequences(loaded.model, ids), probes, tolerance),
    ]
    if layout != "padded":
        checks.append(_compare(_WAYS[layout], score_sequences(loaded.model, ids, layout=layout), probes, tolerance))
    for check in checks:
        if not check.ok:
            raise ContractError(
                f"{loaded.folder}: the contract does not hold: probes {check.name} differ by "
                f"{check.max_difference:.3g} (allowed {check.tolerance:.3g})",
                hint="`rewardlab verify` shows each check; the folder, its tokenizer or the libraries have changed",
            )


def verify_checkpoint(
    source: str | Path, *, device: str | None = None, dtype: str | None = None, trust_remote_code: bool = False
) -> Verification:
    """Every check on a checkpoint, freshly loaded from disk.

    Args:
        source: A local folder or a hub id.
        device: As :func:`~rewardlab.modeling.loading.load_reward_model`.
        dtype: As there.
        trust_remote_code: As there.

    Raises:
        CheckpointError: The model cannot be loaded at all.
    """
    loaded = load_reward_model(source, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    encoder, contract = loaded.encoder(), loaded.contract
    probes = contract.probes if contract else make_probes(loaded.model, encoder)
    scores = [probe.score for probe in probes]
    tolerance = contract.tolerance(loaded.dtype) if contract else _tolerance_without_contract(loaded.dtype, scores)
    ids = [probe.input_ids for probe in probes]
    model, pad_id = loaded.model, loaded.model.config.get_text_config().pad_token_id

    def padded(side: str) -> list[float]:
        with torch.inference_mode():
            batch = {k: v.to(model.device) for k, v in pad(ids, pad_id, side=side, extra=7).items()}
            return [float(score) for score in score_batch(model, batch)]

    def in_batches_of(size: int) -> list[float]:
        return [s for start in range(0, len(ids), size) for s in score_sequences(model, ids[start : start + size])]

    checks = [_check_template(loaded), _check_ids(loaded, probes)] if contract else []
    ways: dict[str, Callable[[], list[float]]] = {
        "alone": lambda: in_batches_of(1),
        "padded on the right": lambda: padded("right"),
        "padded on the left": lambda: padded("left"),
        "in batches of 2": lambda: in_batches_of(2),
        "in batches of 3": lambda: in_batches_of(3),
        "in one batch under the token budget": lambda: score_sequences(model, ids),
        "in reverse order": lambda: score_sequences(model, ids[::-1])[::-1],
    }
    notes = list(loaded.notes)
    choice = layout_for_scoring(loaded, encoder)
    layouts: dict[str, tuple[Layout, ...]] = {"tree": ("packed", "tree"), "packed": ("packed",), "pruned": ("pruned",)}
    for layout in layouts.get(choice.layout, ()):
        ways[_WAYS[layout]] = partial(score_sequences, model, ids, layout=layout)
    notes += [f"not scored in the layout {layout}: {reason}" for layout, reason in choice.refused]
    if not is_decoder(model):
        del ways["padded on the left"]
        notes.append("padding on the left is not checked: an encoder is read at its first token")
    checks += [_compare(name, way(), probes, tolerance) for name, way in ways.items()]
    plain = _through_plain_transformers(loaded, probes, trust_remote_code=trust_remote_code)
    checks.append(_compare("through plain transformers", plain, probes, tolerance))
    return Verification(str(source), contract is not None, len(probes), tuple(checks), tuple(notes))


def measure_lower_precision_tolerance(folder: Path, contract: Contract, *, device: torch.device) -> float:
    """How far a probe's score may be from its stored one in bfloat16 or float16, as an absolute difference.

    The checkpoint is loaded in bfloat16 and its probes scored; allowed is four times the largest difference seen, and
    at least a fiftieth of the reference standard deviation, since other kernels round differently. float16 has more
    bits.
    """
    scores = [probe.score for probe in contract.probes]
    loaded = load_reward_model(folder, device=device, dtype="bfloat16")
    lower = score_sequences(loaded.model, [probe.input_ids for probe in contract.probes])
    measured = max(abs(a - b) for a, b in zip(lower, scores, strict=True))
    spread = contract.reference.std if contract.reference else 0.0
    return max(4 * measured, 0.02 * spread, 10 * float32_tolerance(scores))


def _check_template(loaded: RewardModel) -> Check:
    assert loaded.contract is not None
    same = template_hash(loaded.tokenizer) == loaded.contract.template_sha256
    return Check("chat template unchanged", float(not same), 0.0, same)


def _check_ids(loaded: RewardModel, probes: Sequence[Probe]) -> Check:
    encoder = loaded.encoder()
    different = sum(list(encoder.encode(_group(probe)).sequences[0]) != probe.input_ids for probe in probes)
    return Check("text gives the stored ids", float(different), 0.0, different == 0)


def _group(probe: Probe) -> PromptGroup:
    prompt, answer = probe.messages[: probe.num_prompt_messages], probe.messages[probe.num_prompt_messages :]
    return PromptGroup(tuple(prompt), (tuple(answer),), id="probe")


def _compare(name: str, scores: Sequence[float], probes: Sequence[Probe], tolerance: float) -> Check:
    differences = [abs(score - probe.score) for score, probe in zip(scores, probes, strict=True)]
    # A NaN compares false with everything; count it as the largest difference there is.
    largest = max(math.inf if math.isnan(d) else d for d in differences)
    return Check(name, largest, tolerance, largest <= tolerance)


def _through_plain_transformers(
    loaded: RewardModel, probes: Sequence[Probe], *, trust_remote_code: bool
) -> list[float]:
    """Scores with nothing of rewardlab in between: template, ids, forward, logits, as a stranger would write it."""
    # The tokenizer is loaded again too: ours may have been given a template.
    tokenizer = AutoTokenizer.from_pretrained(loaded.folder, trust_remote_code=trust_remote_code)
    with quiet_transformers():
        model = AutoModelForSequenceClassification.from_pretrained(
            loaded.folder, dtype=DTYPES[loaded.dtype], use_safetensors=True, trust_remote_code=trust_remote_code
        )
    model.eval().to(loaded.model.device)
    encoder = loaded.encoder()
    scores = []
    with torch.inference_mode():
        for probe in probes:
            ids = probe.input_ids
            # A truncated probe has no text that transformers alone would turn into its ids.
            if loaded.contract is not None and not encoder.encode(_group(probe)).truncated:
                rendered: Any = tokenizer.apply_chat_template(probe.messages, return_dict=False)
                ids = rendered
            batch = pad([ids], 0)
            inputs = {name: tensor.to(model.device) for name, tensor in model_inputs(model, batch).items()}
            scores.append(float(model(**inputs).logits[0, 0]))
    return scores


def _tolerance_without_contract(dtype: str, scores: Sequence[float]) -> float:
    """Nothing was measured when such a model was saved: bfloat16 keeps 8 bits, so 2 % of the largest score."""
    exact = float32_tolerance(scores)
    return exact if dtype == "float32" else 0.02 * max(1.0, *(abs(score) for score in scores))
