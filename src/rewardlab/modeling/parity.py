"""Which layout a model can have: rules first, then a comparison with the plain padded forward.

Rules know what cannot be exact by construction. What they do not know the comparison finds: some sequences go through
the plain padded forward and through the layout in question, and their scores (what the head gives wherever it is read),
and for training the gradients, must agree. A layout that is refused falls back to the next (tree -> packed -> padded;
encoders: pruned -> padded), and the reason is kept and said: the run is slower, never wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.encoder_pruning import disable_encoder_pruning
from rewardlab.modeling.engine import Engine
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.packed_forward import CANNOT, disable_packing, last_layer
from rewardlab.modeling.planner import Layout, Positions
from rewardlab.modeling.prefix_tree import Ids
from rewardlab.modeling.preparing import drops_out

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ENGINES = ("auto", "tree", "packed", "padded")

# float32 rounding, relative to the largest score (at least 0.05) and to the gradient's norm. A wrong mask or position
# moves scores by orders of magnitude more.
SCORE_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
_SMALLEST_SCALE = 0.05
# Nothing is known of a model in bfloat16 or float16 but that it keeps 8 bits or more.
LOW_PRECISION_TOLERANCE = 0.02

_TOKENS_COMPARED = 600
_READOUTS_COMPARED = 16  # of a sequence at most; a language model gives 100,000 numbers and more at each
_BUSHY_PREFIX, _BUSHY_COMPLETIONS = 48, 12

_ROPE_BY_BATCH = {"dynamic", "longrope"}
_EXACT_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """The layout a model gets, and why.

    Attributes:
        layout: The layout.
        refused: Better layouts that it cannot have: (layout, reason).
        score_difference: Largest difference between a score in this layout and in the plain padded forward; None for
            the padded layout, which is that forward.
        gradient_difference: Norm of the gradients' difference, relative to the gradient's; None where it was not
            compared.
    """

    layout: Layout
    refused: tuple[tuple[str, str], ...] = ()
    score_difference: float | None = None
    gradient_difference: float | None = None

    def log(self, to: logging.Logger) -> None:
        """Say it: as a warning where a decoder has lost speed."""
        lost = any(layout != "pruned" for layout, _ in self.refused)
        to.log(logging.WARNING if lost else logging.INFO, "engine: %s", self)

    def __str__(self) -> str:
        """One sentence."""
        text = f"layout {self.layout}"
        if self.score_difference is not None:
            text += f", scores within {self.score_difference:.1e} of the padded forward"
        if self.gradient_difference is not None:
            text += f", gradient within {self.gradient_difference:.1e}"
        return text + "".join(f"; not {layout}: {reason}" for layout, reason in self.refused)


def choose_layout(
    model: PreTrainedModel,
    groups: Sequence[Sequence[Ids]],
    *,
    readouts: Sequence[Sequence[Positions]] | None = None,
    engine: str = "auto",
    longest: int,
    with_gradients: bool = False,
    autocast: torch.dtype | None = None,
    called: nn.Module | None = None,
) -> LayoutChoice:
    """The best layout that gives a model's own scores.

    Args:
        model: The model, on its device. With gradients, its ``.grad`` fields are cleared.
        groups: Sequences to compare on, by group, the best to compare on first; only as many as a comparison needs
            are taken.
        readouts: Positions in each sequence at which the head is read, for models that give something at every token;
            None for sequence classifiers.
        engine: ``"auto"`` or the best layout to consider, ``"tree"``, ``"packed"`` or ``"padded"``.
        longest: Longest sequence the model will be given.
        with_gradients: Compare gradients too, as training needs.
        called: The model inside its wrappers, where it lies in shards over several processes, which all choose at the
            same time. Gradients, which nobody has whole then, are not compared.
        autocast: The precision of the run's forward where it is not the weights'. The padded reference is computed in
            the weights' precision, and the layout may differ as much as the padded forward itself does under autocast.

    Raises:
        ConfigError: ``engine`` is none of these.
        ValueError: Read-outs for a model that is not read at tokens, or none for one that is.
    """
    if engine not in ENGINES:
        raise ConfigError(f"unknown engine {engine!r}", hint=f"one of {', '.join(ENGINES)}")
    if engine == "padded":
        return LayoutChoice("padded")
    training, with_gradients = with_gradients, with_gradients and called is None
    groups = _sample(groups)
    readouts = None if readouts is None else [[_some(own) for own in of[:3]] for of in readouts[: len(groups)]]
    if model.device.type == "cuda":
        groups.append(_bushy_group(groups, longest))
        if readouts is not None:
            readouts.append([(len(sequence) - 1,) for sequence in groups[-1]])
    candidates: list[Layout] = ["pruned"]
    if is_decoder(model):
        candidates = ["packed"] if engine == "packed" else ["tree", "packed"]
    refused: list[tuple[str, str]] = []
    reference: _Measured | None = None
    allowed = _Tolerance()
    for layout in candidates:
        reason = rule_against(model, layout, longest, training=training, at_tokens=readouts is not None)
        if reason is None:
            if reference is None:
                reference = _measure(Engine(model, "padded"), groups, readouts, with_gradients, called=called)
                allowed = _tolerance(model, reference, groups, readouts, with_gradients, autocast, called)
            try:
                with _precision(model, autocast):  # the layout is tried out in the precision of the run
                    engine_of_layout = Engine(model, layout)
                found = _measure(engine_of_layout, groups, readouts, with_gradients, autocast, called)
            except torch.OutOfMemoryError:
                raise
            except (CheckpointError, *CANNOT) as error:
                reason = str(getattr(error, "message", error)).split("\n")[0]
            else:
                scores, gradient = found.difference(reference)
                reason = found.refusal(model, longest) or allowed.refusal(scores, gradient)
                if reason is None:
                    return LayoutChoice(layout, tuple(refused), scores, gradient)
        refused.append((layout, reason))
    disable_packing(model)
    disable_encoder_pruning(model)
    return LayoutChoice("padded", tuple(refused))


def agreed_layout(model: PreTrainedModel, choices: Sequence[LayoutChoice]) -> LayoutChoice:
    """The one layout of processes that have each chosen for the same model; rounding may part them near a tolerance.

    Args:
        model: This process's model.
        choices: Of all processes, in the same order in each.

    Returns:
        The first of the choices that refuse most.
    """
    choice = max(choices, key=lambda choice: len(choice.refused))
    if choice.layout == "padded":
        disable_packing(model)
        disable_encoder_pruning(model)
    return choice


def _sample(groups: Sequence[Sequence[Ids]]) -> list[list[Ids]]:
    """The first groups, three completions of each, until there is enough to tell a wrong layout from a right one."""
    sample: list[list[Ids]] = []
    tokens = 0
    for group in groups:
        if sample and tokens >= _TOKENS_COMPARED:
            break
        sample.append(list(group[:3]))
        tokens += sum(len(sequence) for sequence in sample[-1])
    return sample


def _some(positions: Positions) -> Positions:
    """The last of some read-outs, and others at even distances before it."""
    return positions[::-1][:: -(-len(positions) // _READOUTS_COMPARED) or 1][::-1]


def _bushy_group(groups: Sequence[Sequence[Ids]], longest: int) -> list[Ids]:
    """Many one-token completions of one prompt: CUDA computes these with another kernel than few long ones."""
    ids = [i for group in groups for sequence in group for i in sequence]
    prefix = list(groups[0][0])[: min(_BUSHY_PREFIX, longest - 1)]
    return [[*prefix, i] for i in sorted(set(ids))[:_BUSHY_COMPLETIONS]]


def rule_against(
    model: PreTrainedModel, layout: Layout, longest: int, *, training: bool = False, at_tokens: bool = False
) -> str | None:
    """Why a layout cannot be exact for a model, before anything is computed; None if nothing is known against it.

    Args:
        model: The model.
        layout: The layout.
        longest: Longest sequence the model will be given.
        training: Whether dropout matters.
        at_tokens: Whether the head is read at tokens of the sequence rather than once for it.
    """
    config = model.config.get_text_config()
    if model.device.type not in ("cpu", "cuda"):
        return f"there is no packed attention for {model.device.type}"
    if layout == "pruned":
        if at_tokens:
            return "its head is read at more tokens than the first"
        return "its dropout is on; disable_dropout switches it off" if training and drops_out(model) else None
    if getattr(config, "alibi", False):
        return "its attention adds a bias by distance (ALiBi)"
    if not getattr(config, "is_causal", True):
        return "its attention is not causal, so a prefix sees what follows it"
    others = sorted(set(getattr(config, "layer_types", None) or ()) - _EXACT_LAYERS)
    if others:
        return f"it has layers of kind {', '.join(others)}"
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk and longest > chunk:
        return f"its attention goes by chunks of {chunk} tokens, and sequences have up to {longest}"
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {r.get("rope_type") for r in (rope, *(r for r in rope.values() if isinstance(r, dict)))}
    trained = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
    if kinds & _ROPE_BY_BATCH and trained and longest > trained:
        return f"its rotary positions change with the longest sequence of a batch beyond {trained} tokens"
    if training and drops_out(model):
        return "its dropout is on; disable_dropout switches it off"
    if training and layout == "tree" and drops_out(model, adapters=True):
        return "with adapter dropout the completions of a prompt would share its mask"
    return None


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one way of computing gave."""

    scores: Tensor
    gradients: tuple[Tensor, ...]
    is_packed: bool
    layers_seen: frozenset[int] = frozenset()
    windows_seen: frozenset[int | None] = frozenset()

    def difference(self, reference: _Measured) -> tuple[float, float | None]:
        """Largest score difference, and relative difference of the gradients; inf where one is not a number."""
        scores = float((self.scores - reference.scores).abs().max())
        gradient = None
        if reference.gradients:
            pairs = zip(self.gradients, reference.gradients, strict=True)
            apart = torch.nn.utils.get_total_norm([mine - theirs for mine, theirs in pairs])
            gradient = float(apart) / max(float(torch.nn.utils.get_total_norm(reference.gradients)), 1e-12)
        return (
            scores if math.isfinite(scores) else math.inf,
            gradient if gradient is None or math.isfinite(gradient) else math.inf,
        )

    def refusal(self, model: PreTrainedModel, longest: int) -> str | None:
        """What the run over packed rows showed about the model's layers."""
        if not self.is_packed:
            return None
        layer = last_layer(model)
        config = model.config.get_text_config()
        if layer is not None and len(self.layers_seen) < config.num_hidden_layers:
            return (
                f"only {len(self.layers_seen)} of its {config.num_hidden_layers} layers go through transformers' "
                "attention interface"
            )
        window = getattr(config, "sliding_window", None)
        if window and longest > window and window not in self.windows_seen:
            return f"its layers do not say that they see {window} tokens only, and sequences have up to {longest}"
        return None


@dataclass(frozen=True, slots=True)
class _Tolerance:
    """How far a layout may be from the reference."""

    scores: float = 0.0
    gradient: float = 0.0

    def refusal(self, scores: float, gradient: float | None) -> str | None:
        """What differs too much, in words."""
        if not math.isfinite(scores):
            return "its scores are not finite numbers"
        if scores > self.scores:
            return f"its scores differ from the padded forward's by {scores:.1e} (allowed {self.scores:.1e})"
        if gradient is not None and gradient > self.gradient:
            return f"its gradient differs by {gradient:.1e} from the padded forward's (allowed {self.gradient:.1e})"
        return None


def _tolerance(
    model: PreTrainedModel,
    reference: _Measured,
    groups: Sequence[Sequence[Ids]],
    readouts: Sequence[Sequence[Positions]] | None,
    with_gradients: bool,
    autocast: torch.dtype | None,
    called: nn.Module | None,
) -> _Tolerance:
    largest = max(_SMALLEST_SCALE, float(reference.scores.abs().max()))
    if model.dtype not in (torch.float32, torch.float64):
        return _Tolerance(LOW_PRECISION_TOLERANCE * largest, 5 * LOW_PRECISION_TOLERANCE)
    scores, gradient = SCORE_TOLERANCE * largest, GRADIENT_TOLERANCE
    if autocast is not None:
        again = _measure(Engine(model, "padded"), groups, readouts, with_gradients, autocast, called)
        noise = again.difference(reference)
        scores, gradient = max(scores, 3 * noise[0]), max(gradient, 3 * (noise[1] or 0.0))
    return _Tolerance(scores, gradient)


def _precision(model: PreTrainedModel, autocast: torch.dtype | None) -> AbstractContextManager[Any]:
    return nullcontext() if autocast is None else torch.autocast(model.device.type, autocast)


def _measure(
    engine: Engine,
    groups: Sequence[Sequence[Ids]],
    readouts: Sequence[Sequence[Positions]] | None,
    with_gradients: bool,
    autocast: torch.dtype | None = None,
    called: nn.Module | None = None,
) -> _Measured:
    """What the head gives at all read-outs, and the gradient of a fixed mixture of it.

    The gradients are held for as long as the comparison: less than an optimiser's state, which is not there yet.
    """
    model = engine.model
    was_training = model.training
    model.eval()  # adapter dropout would differ from one run to the next
    counts = [len(group) for group in groups] if readouts is None else [sum(map(len, of)) for of in readouts]
    starts = list(accumulate(counts, initial=0))
    scores, weights = torch.empty(0), torch.empty(0)
    layers, windows = set[int](), set[int | None]()
    trainable = [p for p in model.parameters() if p.requires_grad] if with_gradients else []
    try:
        for part in engine.planner.parts(groups, readouts):
            numbers = [number for g in part.groups for number in range(starts[g], starts[g + 1])]
            for forward in part.forwards:
                with torch.set_grad_enabled(with_gradients), _precision(model, autocast):
                    inputs = engine.arguments(forward)
                    values = engine.at_readouts(forward, (called or model)(**inputs).logits).float()
                if not len(scores):
                    scores = torch.zeros(starts[-1], values.shape[1])
                    # Weights of both signs, as differences of completions have.
                    weights = torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
                own = [numbers[i] for i in forward.indices]
                scores[own] = values.detach().cpu()
                if with_gradients:
                    torch.sum(values * weights[own].to(values.device)).backward()
                if forward.row is not None:
                    layers.update(inputs["packing_plan"].layers_seen)
                    windows.update(inputs["packing_plan"].windows_seen)
        gradients = tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in trainable)
    finally:
        for parameter in trainable:
            parameter.grad = None
        model.train(was_training)
    return _Measured(scores, gradients, engine.planner.is_packed, frozenset(layers), frozenset(windows))
