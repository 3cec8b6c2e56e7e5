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
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.template import template_hash
from rewardlab.errors import ContractError
from rewardlab.modeling.aggregation import correctness_logits, score_of
from rewardlab.modeling.contract import Contract, Probe
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.ensemble_heads import compare_heads, head_scores, load_heads, use_heads
from rewardlab.modeling.forward import model_inputs, pad
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.loading import DTYPES, RewardModel, load_reward_model, model_class, quiet_transformers
from rewardlab.modeling.parity import LayoutChoice, choose_layout
from rewardlab.modeling.planner import Layout
from rewardlab.modeling.probes import probe_groups
from rewardlab.types import PromptGroup, ReadOut, conversation

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
        encoded = encoder.encode(group)
        (values,) = _values(model, encoder.read_out, [_Sequence.of(encoded)])
        prompt = [dict(m) for m in group.prompt if not isinstance(m, str)]
        answer = {"role": "assistant", "content": group.completions[0]}
        probes.append(Probe([*prompt, answer], len(prompt), list(encoded.sequences[0]), values[0], values[1:]))
    return probes


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A probe as the model is given it: ids, and where they are read."""

    ids: tuple[int, ...]
    readouts: tuple[int, ...]

    @classmethod
    def of(cls, encoded: EncodedGroup) -> _Sequence:
        """The first sequence of a group."""
        return cls(encoded.sequences[0], encoded.readouts[0] if encoded.readouts else ())


def _values(
    model: PreTrainedModel, read_out: ReadOut, sequences: Sequence[_Sequence], layout: Layout = "padded"
) -> list[list[float]]:
    """What a contract stores of each probe: its score, and a process model's step scores."""
    engine = Engine(model, layout)
    if read_out.kind == "sequence":
        return [[score] for score in engine.score([s.ids for s in sequences])]
    outputs = engine.outputs([s.ids for s in sequences], [s.readouts for s in sequences])
    return [_values_of(output, read_out) for output in outputs]


def _values_of(outputs: Tensor, read_out: ReadOut) -> list[float]:
    steps = torch.sigmoid(correctness_logits(outputs, read_out)).tolist() if read_out.kind == "step" else []
    return [score_of(outputs, read_out), *steps]


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
    sequences = _sequences(loaded, probes)
    # The first two are answers to one question.
    groups = [sequences[:2], *([s] for s in sequences[2:])]
    return choose_layout(
        loaded.model,
        [[s.ids for s in group] for group in groups],
        readouts=None if loaded.read_out.kind == "sequence" else [[s.readouts for s in group] for group in groups],
        engine=engine,
        longest=encoder.max_length,
    )


def require_contract_holds(loaded: RewardModel, layout: Layout = "padded") -> None:
    """The quick check at loading: ids, alone, all in one padded batch, and all in the layout that will be used.

    Raises:
        ContractError: Naming the check that failed and by how much.
    """
    if loaded.contract is None:
        return
    probes, tolerance = loaded.contract.probes, loaded.contract.tolerance(loaded.dtype)
    sequences, values = _sequences(loaded, probes), partial(_values, loaded.model, loaded.read_out)
    checks = [
        _check_ids(loaded, probes),
        _compare("alone", [value for s in sequences for value in values([s])], probes, tolerance),
        _compare("in one padded batch", values(sequences), probes, tolerance),
    ]
    if layout != "padded":
        checks.append(_compare(_WAYS[layout], values(sequences, layout), probes, tolerance))
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
    model, sequences = loaded.model, _sequences(loaded, probes)
    values = partial(_values, model, loaded.read_out)

    def in_batches_of(size: int) -> list[list[float]]:
        return [v for start in range(0, len(sequences), size) for v in values(sequences[start : start + size])]

    checks = [_check_template(loaded), _check_ids(loaded, probes)] if contract else []
    ways: dict[str, Callable[[], list[list[float]]]] = {
        "alone": lambda: in_batches_of(1),
        "padded on the right": lambda: _padded_values(loaded, sequences, "right"),
        "padded on the left": lambda: _padded_values(loaded, sequences, "left"),
        "in batches of 2": lambda: in_batches_of(2),
        "in batches of 3": lambda: in_batches_of(3),
        "in one batch under the token budget": lambda: values(sequences),
        "in reverse order": lambda: values(sequences[::-1])[::-1],
    }
    notes = list(loaded.notes)
    choice = layout_for_scoring(loaded, encoder)
    layouts: dict[str, tuple[Layout, ...]] = {"tree": ("packed", "tree"), "packed": ("packed",), "pruned": ("pruned",)}
    for layout in layouts.get(choice.layout, ()):
        ways[_WAYS[layout]] = partial(values, sequences, layout)
    notes += [f"not scored in the layout {layout}: {reason}" for layout, reason in choice.refused]
    if not is_decoder(model):
        del ways["padded on the left"]
        notes.append("padding on the left is not checked: an encoder is read at its first token")
    checks += [_compare(name, way(), probes, tolerance) for name, way in ways.items()]
    plain = _through_plain_transformers(loaded, probes, trust_remote_code=trust_remote_code)
    checks.append(_compare("through plain transformers", plain, probes, tolerance))
    heads = load_heads(loaded.folder, contract) if contract else None
    if heads is not None:  # the last: the model then has other heads than its own
        use_heads(model, heads)
        found = max((compare_heads(loaded, layout) for layout in ("padded", choice.layout)), key=lambda f: f.largest)
        checks.append(Check("ensemble heads", found.largest, found.allowed, found.ok))
    return Verification(str(source), contract is not None, len(probes), tuple(checks), tuple(notes))


def measure_lower_precision_tolerances(folder: Path, contract: Contract, *, device: torch.device) -> list[float]:
    """How far a probe's score may be from its stored one in bfloat16 or float16: the model's, then each head's.

    The checkpoint is loaded in bfloat16 and its probes scored; allowed is four times the largest difference seen, and
    at least a fiftieth of the reference standard deviation, since other kernels round differently. float16 has more
    bits.
    """
    scores = [probe.score for probe in contract.probes]
    loaded = load_reward_model(folder, device=device, dtype="bfloat16")
    lower = _values(loaded.model, loaded.read_out, _sequences(loaded, contract.probes))
    measured = _compare("in bfloat16", lower, contract.probes, math.inf).max_difference
    found = [_allowed_in_lower_precision(measured, scores, contract.reference)]
    heads = load_heads(folder, contract)
    if heads is not None:
        use_heads(loaded.model, heads)
        of_heads = head_scores(Engine(loaded.model), [probe.input_ids for probe in contract.probes]).T
        for record, own in zip(contract.heads, of_heads, strict=True):
            measured = float((own - torch.tensor(record.probe_scores)).abs().max())
            found.append(_allowed_in_lower_precision(measured, record.probe_scores, record.reference))
    return found


def _allowed_in_lower_precision(
    measured: float, scores: Sequence[float], reference: ReferenceStatistics | None
) -> float:
    return max(4 * measured, 0.02 * (reference.std if reference else 0.0), 10 * float32_tolerance(scores))


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


def _sequences(loaded: RewardModel, probes: Sequence[Probe]) -> list[_Sequence]:
    """The probes as the model is given them; where other tokens than the last are read, they are found anew."""
    if loaded.read_out.kind == "sequence":
        return [_Sequence(tuple(probe.input_ids), ()) for probe in probes]
    encoder = loaded.encoder()
    return [_Sequence.of(encoder.encode(_group(probe))) for probe in probes]


def _padded_values(loaded: RewardModel, sequences: Sequence[_Sequence], side: str) -> list[list[float]]:
    """Values from one batch with padding to spare on one side."""
    model = loaded.model
    batch = pad([s.ids for s in sequences], model.config.get_text_config().pad_token_id, side=side, extra=7)
    width = batch["input_ids"].shape[1]
    with torch.inference_mode():
        logits = model(**{k: v.to(model.device) for k, v in model_inputs(model, batch).items()}).logits.float().cpu()
    found = []
    for row, s in enumerate(sequences):
        first = 0 if side == "right" else width - len(s.ids)
        outputs = logits[row] if loaded.read_out.kind == "sequence" else logits[row, [first + p for p in s.readouts]]
        found.append(_values_of(outputs if loaded.read_out.kind == "step" else outputs.reshape(-1), loaded.read_out))
    return found


def _compare(name: str, values: Sequence[Sequence[float]], probes: Sequence[Probe], tolerance: float) -> Check:
    differences = [
        abs(value - stored)
        for some, probe in zip(values, probes, strict=True)
        for value, stored in zip_longest(some, [probe.score, *probe.step_scores], fillvalue=math.nan)
    ]
    # A NaN (also: more or fewer steps than are stored) compares false with everything; it is the largest difference.
    largest = max(math.inf if math.isnan(d) else d for d in differences)
    return Check(name, largest, tolerance, largest <= tolerance)


def _through_plain_transformers(
    loaded: RewardModel, probes: Sequence[Probe], *, trust_remote_code: bool
) -> list[list[float]]:
    """Values with nothing of rewardlab in between: template, ids, forward, logits, as a stranger would write it."""
    # The tokenizer is loaded again too: ours may have been given a template.
    tokenizer = AutoTokenizer.from_pretrained(loaded.folder, trust_remote_code=trust_remote_code)
    with quiet_transformers():
        model = model_class(loaded.read_out.kind).from_pretrained(
            loaded.folder, dtype=DTYPES[loaded.dtype], use_safetensors=True, trust_remote_code=trust_remote_code
        )
    model.eval().to(loaded.model.device)
    encoder = loaded.encoder()
    values = []
    with torch.inference_mode():
        for probe, sequence in zip(probes, _sequences(loaded, probes), strict=True):
            ids: Any = sequence.ids
            # A truncated probe has no text that transformers alone would turn into its ids.
            if loaded.contract is not None and not encoder.encode(_group(probe)).truncated:
                marked = encoder.marked(_group(probe))
                messages: Any = list(conversation(marked.prompt, marked.completions[0]))
                ids = tokenizer.apply_chat_template(messages, return_dict=False)
            batch = pad([ids], 0)
            inputs = {name: tensor.to(model.device) for name, tensor in model_inputs(model, batch).items()}
            logits = model(**inputs).logits[0].float().cpu()
            kind = loaded.read_out.kind
            outputs = logits if kind == "sequence" else logits[list(sequence.readouts)]
            values.append(_values_of(outputs if kind == "step" else outputs.reshape(-1), loaded.read_out))
    return values


def _tolerance_without_contract(dtype: str, scores: Sequence[float]) -> float:
    """Nothing was measured when such a model was saved: bfloat16 keeps 8 bits, so 2 % of the largest score."""
    exact = float32_tolerance(scores)
    return exact if dtype == "float32" else 0.02 * max(1.0, *(abs(score) for score in scores))
