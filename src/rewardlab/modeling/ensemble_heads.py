"""Several scalar heads on one trunk: their file beside a plain checkpoint, and how they are put into a model.

A checkpoint that was trained with H heads is a plain one-label checkpoint whose head is their mean, since the mean of
linear heads is a linear head: whoever loads it gets the mean score. The heads themselves lie in a file of their own, in
a folder of its own, for vLLM and SGLang read every ``*.safetensors`` that lies beside ``config.json`` and refuse a
weight they do not know. Each head's scale and its scores of the probes are the contract's ``heads``; the file's hash is
there too.

This file knows heads, and how a contract proves them; how scores are combined is :mod:`rewardlab.scoring.ensemble`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rewardlab.documents import read_bytes
from rewardlab.errors import CheckpointError, ContractError
from rewardlab.modeling.contract import Contract, load_contract
from rewardlab.modeling.engine import Engine, head_outputs
from rewardlab.modeling.head import Float32Head, head_name, initialise_head
from rewardlab.modeling.planner import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rewardlab.modeling.loading import RewardModel

FILE_NAME = "heads/ensemble_heads.safetensors"
"""Where the heads lie in a checkpoint's folder: ``weight`` (H, hidden) and, where there is one, ``bias`` (H,)."""

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Heads:
    """The linear heads of one trunk.

    Attributes:
        weight: Shape (H, hidden), float32.
        bias: Shape (H,), float32; None for decoders, whose head has none.
    """

    weight: Tensor
    bias: Tensor | None = None

    def __len__(self) -> int:
        """How many heads there are."""
        return len(self.weight)

    @classmethod
    def of(cls, model: nn.Module) -> Heads:
        """The heads now in a model: a copy, on the CPU."""
        head = model.get_submodule(head_name(model))
        assert isinstance(head, nn.Linear)
        bias = None if head.bias is None else head.bias.detach().float().cpu().clone()
        return cls(head.weight.detach().float().cpu().clone(), bias)

    @property
    def mean(self) -> Heads:
        """The one head whose score is the mean of all heads' scores."""
        bias = None if self.bias is None else self.bias.double().mean(dim=0, keepdim=True).float()
        return Heads(self.weight.double().mean(dim=0, keepdim=True).float(), bias)

    def only(self, head: int) -> Heads:
        """One of the heads, counted from 0."""
        bias = None if self.bias is None else self.bias[head : head + 1].clone()
        return Heads(self.weight[head : head + 1].clone(), bias)

    def save(self, folder: Path) -> str:
        """Write them into a checkpoint's folder; returns the file's SHA-256, for the contract."""
        path = folder / FILE_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def load_heads(folder: str | Path, contract: Contract | None = None) -> Heads | None:
    """The heads of a checkpoint, checked against its contract.

    Args:
        folder: A local folder, such as :attr:`~rewardlab.modeling.loading.RewardModel.folder`.
        contract: Its contract; read from the folder where it is left out.

    Returns:
        The heads, on the CPU; None where the contract knows of none, or there is no contract.

    Raises:
        CheckpointError: The contract says that there are heads, and their file is missing, or is not the one that was
            saved with it.
        ContractError: There is a contract that cannot be read.
    """
    folder = Path(folder)
    contract = contract or load_contract(folder)
    if contract is None or not contract.heads:
        return None
    path, expected = folder / FILE_NAME, len(contract.heads)
    if not path.is_file():
        raise CheckpointError(
            f"{path} is missing: the contract says that this checkpoint has {expected} heads",
            hint="copy the folder whole; without the file the checkpoint is still the mean of its heads",
        )
    content = read_bytes(path, CheckpointError)
    if hashlib.sha256(content).hexdigest() != contract.heads_sha256:
        raise CheckpointError(
            f"{path} is not the file that was saved with the contract: its SHA-256 is another",
            hint="restore the file from a copy",
        )
    try:
        tensors = load(content)
        weight, bias = tensors["weight"], tensors.get("bias")
    except (SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path}: not the weights of heads: {error}", hint="restore the file") from error
    if weight.ndim != 2 or len(weight) != expected or (bias is not None and bias.shape != (expected,)):
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(
            f"{path} holds {shapes}, expected a weight of shape ({expected}, hidden) and at most a bias ({expected},)",
            hint="restore the file from a copy",
        )
    return Heads(weight.float(), None if bias is None else bias.float())


def use_heads(model: nn.Module, heads: Heads) -> Float32Head:
    """Put heads into a model in the place of its own: it then gives H numbers for each sequence, in every layout.

    Args:
        model: A ``*ForSequenceClassification`` model. Its config's ``num_labels`` becomes H: do not save it so.
        heads: One head or several.

    Returns:
        The head now in the model, on its device.

    Raises:
        CheckpointError: The heads are of another hidden size than the model, or one of the two has a bias.
    """
    name = head_name(model)
    old = model.get_submodule(name)
    assert isinstance(old, nn.Linear)
    if heads.weight.shape[1] != old.in_features or (heads.bias is None) != (old.bias is None):
        said = "without a bias" if heads.bias is None else "with a bias"
        has = "without a bias" if old.bias is None else "with a bias"
        raise CheckpointError(
            f"heads of hidden size {heads.weight.shape[1]} {said} do not fit a {type(model).__name__} of hidden size "
            f"{old.in_features} {has}",
            hint="the file of the heads belongs to another checkpoint",
        )
    new = Float32Head(old.in_features, len(heads), bias=old.bias is not None, device=old.weight.device)
    with torch.no_grad():
        new.weight.copy_(heads.weight)
        if heads.bias is not None:
            new.bias.copy_(heads.bias)
    new.requires_grad_(old.weight.requires_grad).train(old.training)
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
    settled = cast("PreTrainedModel", model)
    settled.config.num_labels = settled.num_labels = len(heads)  # type: ignore[assignment]
    return new


def initialise_heads(head: nn.Linear, seed: int) -> None:
    """Draw the start of each head as :func:`~rewardlab.modeling.head.initialise_head` does, with a seed of its own.

    A head's start depends on the run's seed and on its number alone: not on how many heads there are.
    """
    one = nn.Linear(head.in_features, 1, bias=head.bias is not None)
    for number in range(head.out_features):
        initialise_head(one, seed_of_head(seed, number))
        with torch.no_grad():
            head.weight[number] = one.weight[0]
            if head.bias is not None:
                head.bias[number] = one.bias[0]


def seed_of_head(seed: int, head: int) -> int:
    """The seed of one head's start; hashed, so that head 1 of seed 42 is not head 0 of seed 43."""
    return int.from_bytes(hashlib.sha256(f"head {head} of seed {seed}".encode()).digest()[:6], "big")


def head_scores(
    engine: Engine, sequences: Sequence[Sequence[int]], on_progress: Callable[[int], None] | None = None
) -> Tensor:
    """Each head's score of many sequences, without gradients.

    Args:
        engine: Runs a model with H heads.
        sequences: Ids of each sequence.
        on_progress: Called with the number of sequences just scored.

    Returns:
        Shape (sequences, H), float32, on the CPU; H = 1 for a plain model.
    """
    rows = engine.rows([tuple(ids) for ids in sequences], None, on_progress, head_outputs)
    return rows if rows.ndim == 2 else rows.unsqueeze(-1)  # with one output rows are numbers; so are those of nothing


@dataclass(frozen=True, slots=True)
class HeadsDifference:
    """How far heads are from their stored scores of the probes.

    Attributes:
        largest: Largest absolute difference of a head's score from its stored one, or of the heads' mean from the
            checkpoint's own; infinite where a score is no number or is missing.
        allowed: Largest allowed.
    """

    largest: float
    allowed: float

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        return self.largest <= self.allowed


def compare_heads(loaded: RewardModel, layout: Layout = "padded") -> HeadsDifference:
    """Score the probes with each head that is in a model, and compare with what the contract says of it.

    Args:
        loaded: A checkpoint with a contract, its heads put into its model (:func:`use_heads`).
        layout: The layout to score in.
    """
    contract = loaded.contract
    assert contract is not None
    found = head_scores(Engine(loaded.model, layout), [probe.input_ids for probe in contract.probes]).double()
    stored = torch.tensor([record.probe_scores for record in contract.heads], dtype=torch.float64).T
    allowed = min(record.tolerance(loaded.dtype) for record in contract.heads)
    if found.shape != stored.shape:
        return HeadsDifference(float("inf"), allowed)
    mean = torch.tensor([probe.score for probe in contract.probes], dtype=torch.float64)
    largest = float(torch.maximum((found - stored).abs().amax(), (found.mean(dim=1) - mean).abs().amax()))
    return HeadsDifference(float("inf") if largest != largest else largest, allowed)


def require_heads_hold(loaded: RewardModel, heads: Heads, layout: Layout = "padded") -> None:
    """Put heads into a loaded model and check that they give the scores that the contract promises.

    Args:
        loaded: The checkpoint, as :func:`~rewardlab.modeling.loading.load_reward_model` gives it.
        heads: Its heads.
        layout: The layout that will be used; it must be one that the model can have.

    Raises:
        CheckpointError: The heads do not fit the model.
        ContractError: They give other scores, or the contract states no tolerance for the dtype.
    """
    use_heads(loaded.model, heads)
    ways: dict[Layout, None] = {"padded": None, layout: None}
    for way in ways:
        difference = compare_heads(loaded, way)
        if not difference.ok:
            raise ContractError(
                f"{loaded.folder}: the heads do not give the scores that the contract promises ({way}): they differ by "
                f"{difference.largest:.3g} (allowed {difference.allowed:.3g})",
                hint="`rewardlab verify` shows each check; restore the folder from a copy",
            )
