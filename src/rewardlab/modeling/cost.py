"""What a forward or a group costs to compute, before it is computed: by this work is shared out between processes.

FLOPs are counted from the sizes of a model's layers and from ids, as the layout computes them: a prefix that is shared
counts once, padding counts. A backward costs twice its forward, whatever the forward, so shares of the one are shares
of both. This file knows sizes; it runs nothing, and reads no weights, which may lie in shards on other processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from rewardlab.modeling.prefix_tree import Ids, tree_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rewardlab.modeling.engine import Forward, Layout


@dataclass(frozen=True, slots=True)
class ComputeCost:
    """What one model computes.

    Attributes:
        per_token: FLOPs of its linear layers for a token: 2 for each weight that the token meets.
        per_pair: FLOPs of all its layers' attention for a query and a key: 2 for their product and 2 for the value's
            part, for each number of the query. Windows are not looked at: they matter in long sequences alone, which
            are the dearest either way.
    """

    per_token: float
    per_pair: float

    @classmethod
    def of_model(cls, model: PreTrainedModel) -> ComputeCost:
        """The costs of a model with its adapters, without embeddings, which are looked up, and its head at a few rows.

        Args:
            model: The model inside its wrappers.
        """
        config = model.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        weights = sum(_weights_met(module, config) for module in model.base_model.modules())
        return cls(2.0 * weights, 4.0 * config.num_hidden_layers * config.num_attention_heads * width)

    def of_forward(self, forward: Forward) -> float:
        """FLOPs of one forward."""
        if forward.row is None:
            rows, columns = forward.inputs["input_ids"].shape
            return self._of(rows * columns, rows * columns**2)
        pairs = 0
        for segment in forward.row.segments:
            pairs += _pairs(segment.stop - segment.start, segment.prefix_length)
        return self._of(forward.row.num_tokens, pairs)

    def of_group(self, sequences: Sequence[Ids], layout: Layout) -> float:
        """FLOPs of one group's forward.

        Args:
            sequences: Its whole sequences.
            layout: What it will be computed in.
        """
        lengths = [len(sequence) for sequence in sequences]
        if layout == "tree":
            tree = tree_of(sequences)
            prefix = tree.prefix_length
            return self._of(tree.num_tokens, _pairs(prefix, 0) + sum(_pairs(n - prefix, prefix) for n in lengths))
        if layout == "packed":
            return self._of(sum(lengths), sum(_pairs(n, 0) for n in lengths))
        return self._of(len(lengths) * max(lengths), len(lengths) * max(lengths) ** 2)

    def _of(self, tokens: int, pairs: int) -> float:
        return self.per_token * tokens + self.per_pair * pairs


def _pairs(own: int, before: int) -> int:
    """Query-key pairs of causal attention: of ``own`` tokens in a row, after ``before`` that they see as well."""
    return own * before + own * (own + 1) // 2


def _weights_met(module: nn.Module, config: Any) -> float:
    """Weights of one module, without those inside it, that every token is multiplied with."""
    if isinstance(module, nn.Linear):
        return module.in_features * module.out_features  # said so also where its weights are in shards or in 4 bits
    if isinstance(module, nn.Embedding):
        return 0
    met = 0.0
    for parameter in module.parameters(recurse=False):
        shape = getattr(parameter, "ds_shape", parameter.shape)  # DeepSpeed's: of the whole, not of this shard
        if len(shape) == 2:
            met += shape.numel()
        elif len(shape) == 3:  # experts, of which a token meets a few
            met += shape.numel() * min(1.0, (getattr(config, "num_experts_per_tok", None) or shape[0]) / shape[0])
    return met
