"""The scalar head: where it is in a model, its float32 arithmetic, its seeded start.

Reward models are transformers' own ``*ForSequenceClassification`` classes with ``num_labels=1``: decoders end in a
linear layer ``score`` that is read at the last token that is not padding, encoders in ``classifier`` behind their
pooler. Both names and both read-outs stay transformers' own, so any tool that loads the class gets the same score. What
changes is the arithmetic: a head in bfloat16 gives completions of one prompt equal scores (sentence-transformers#3893),
so ours multiplies in float32 whatever the model's dtype.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rewardlab.errors import CheckpointError


class Float32Head(nn.Linear):
    """A linear head that computes in float32, also under autocast; its parameters keep their checkpoint names."""

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Float32Head:
        """The same head with the same values, its parameters raised to float32."""
        head = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device=linear.weight.device)
        with torch.no_grad():
            head.weight.copy_(linear.weight)
            if linear.bias is not None:
                head.bias.copy_(linear.bias)
        return head

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Scores, or class logits, of hidden states.

        Args:
            hidden_states: Shape (..., hidden), any float dtype.

        Returns:
            Shape (..., outputs), float32.
        """
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast(hidden_states.device.type, enabled=False):
            return functional.linear(hidden_states.float(), self.weight.float(), bias)


def head_name(model: nn.Module) -> str:
    """Dotted name of the model's head: its only linear layer outside the trunk with as many outputs as it has labels.

    A causal language model's head is its output embedding.

    Raises:
        CheckpointError: There is none, or more than one.
    """
    trunk = getattr(model, "base_model_prefix", "")
    outputs = num_outputs(model)
    names = {
        # PEFT keeps the head twice below its own name: as it was, and as it is trained.
        name.split(".original_module")[0].split(".modules_to_save.")[0]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == outputs and name.split(".")[0] != trunk
    }
    if len(names) != 1:
        raise CheckpointError(
            f"{type(model).__name__} has {len(names)} linear layers with {outputs} outputs outside its trunk, expected "
            "one",
            hint="rewardlab needs a *ForSequenceClassification model with num_labels=1, or a *ForTokenClassification",
        )
    return names.pop()


def num_outputs(model: nn.Module) -> int:
    """How many numbers the model's head gives for a row: its labels, or the vocabulary of a causal language model."""
    find = getattr(model, "get_output_embeddings", None)
    embedding = find() if callable(find) else None
    if embedding is not None:
        return int(embedding.weight.shape[0])
    return int(getattr(getattr(model, "config", None), "num_labels", 1))


def use_float32_head(model: nn.Module) -> Float32Head:
    """Put a :class:`Float32Head` in the place of the model's head, with its values.

    Returns:
        The head now in the model.
    """
    name = head_name(model)
    head = model.get_submodule(name)
    assert isinstance(head, nn.Linear)
    if isinstance(head, Float32Head):
        return head
    parent, _, child = name.rpartition(".")
    ours = Float32Head.from_linear(head)
    setattr(model.get_submodule(parent), child, ours)
    return ours


def initialise_head(head: nn.Linear, seed: int) -> None:
    """Draw the head's start: normal with std 1 / sqrt(hidden + 1), bias 0, from its own generator.

    The generator is the head's own, so that the start depends on the seed alone and is the same on every rank.

    References:
        Stiennon et al. 2020 (arXiv:2009.01325), openai/summarize-from-feedback ``reward_model.py`` (``init_std``).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        std = (head.in_features + 1) ** -0.5
        head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * std)
        if head.bias is not None:
            head.bias.zero_()


def is_decoder(model: nn.Module) -> bool:
    """Whether the model is a decoder, whose tokens see only what came before them.

    transformers calls the head of its decoders ``score`` (a language model's: ``lm_head``), of its encoders
    ``classifier``. A decoder with an encoder's head is taken for an encoder, which costs speed and changes no score.
    """
    return head_name(model) in ("score", "lm_head")
