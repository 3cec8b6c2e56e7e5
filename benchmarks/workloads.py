"""What the speed benchmarks work on: real texts, groups made of them, and models of real shapes with random weights.

Speed does not depend on what the weights are, so models are drawn from a seed; lengths and shared prefixes decide it,
so texts are real. This file knows data and model shapes; it measures nothing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from rewardlab import Pair, PromptGroup
from rewardlab.data.encoding import EncodedGroup, Encoder
from rewardlab.data.loading import read_groups
from rewardlab.types import text_of

ROOT = Path(__file__).resolve().parent.parent
VOCABULARY = 8192
MAX_POSITIONS = 16384


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder."""

    family: type[Qwen2Config | Qwen3Config]
    hidden: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int


SHAPES = {
    "T1": Shape(Qwen3Config, 128, 256, 2, 4, 2),  # for trying a benchmark out; its ratios mean nothing
    "S10": Shape(Qwen3Config, 384, 1152, 6, 6, 2),  # 10.3 M parameters outside the embeddings
    "M38": Shape(Qwen3Config, 512, 1536, 12, 8, 4),  # 37.7 M
    "0.5B": Shape(Qwen2Config, 896, 4864, 24, 14, 2),  # Qwen2.5-0.5B but for its vocabulary, which costs no FLOPs
    "1.5B": Shape(Qwen2Config, 1536, 8960, 28, 12, 2),  # Qwen2.5-1.5B likewise
}


def hh_groups() -> list[PromptGroup]:
    """All pairs of Anthropic's hh-rlhf harmless test set, in the file's order."""
    root = Path(os.environ.get("REWARDLAB_DATA") or ROOT.parent / "shared" / "data")
    path = root / "hh_harmless_test" / "uniform.jsonl.gz"
    if not path.exists():
        raise SystemExit(f"error: no preference data at {path}\nhint: set REWARDLAB_DATA to the folder that has it")
    return [group for group in read_groups([path], max_bad_fraction=1.0).groups if group.pairs]


def build_base_model(folder: Path, shape: Shape, groups: Iterable[PromptGroup], seed: int) -> None:
    """A decoder with random weights and a byte-level BPE trained on the texts, saved as any base model is.

    The tokenizer adds nothing by itself, so that tools which do not render a chat template see the same ids.
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator((text_of(t) for group in groups for t in (group.prompt, *group.completions)), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"],  # decoders take no token types
    )
    config = shape.family(
        vocab_size=VOCABULARY,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def usable(groups: Iterable[PromptGroup], encoder: Encoder, limit: int, seed: int) -> list[PromptGroup]:
    """The first ``limit`` different groups, after a seeded shuffle, that no trainer would cut or drop.

    TRL drops what is longer than its maximum, rewardlab cuts it; two runs are comparable only without such groups.
    """
    shuffled = random.Random(seed).sample(groups := list(groups), len(groups))
    kept: dict[frozenset[tuple[int, ...]], PromptGroup] = {}
    for group, item in zip(shuffled, encoder.encode_many(shuffled), strict=True):
        if isinstance(item, EncodedGroup) and not item.truncated and len(set(item.sequences)) == len(item.sequences):
            kept.setdefault(frozenset(item.sequences), group)
    return list(kept.values())[:limit]


class TextSource:
    """Real text of any wished length, in tokens: prompts of the given groups, joined and cut.

    Args:
        groups: Where the text comes from.
        tokenizer: A fast tokenizer, which tells where each token ends.
        seed: Seed of the draws.
    """

    def __init__(self, groups: Sequence[PromptGroup], tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._prompts = [text_of(group.prompt) for group in groups]
        self._tokenizer = tokenizer
        self._random = random.Random(seed)

    def take(self, num_tokens: int) -> str:
        """A text of about ``num_tokens`` tokens; tokens may merge anew at the cut."""
        text = ""
        while True:
            text += self._random.choice(self._prompts) + "\n"
            ends = self._tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
            if len(ends) >= num_tokens:
                return text[: ends[num_tokens - 1][1]]

    def ranked_groups(self, count: int, *, size: int, prompt: int, completion: tuple[int, int]) -> list[PromptGroup]:
        """Groups of ranked completions, the best first: every two of them are a pair.

        Args:
            count: How many groups.
            size: Completions in each.
            prompt: Tokens of a prompt.
            completion: Fewest and most tokens of a completion.
        """
        pairs = [Pair(better, worse) for better, worse in combinations(range(size), 2)]
        return [
            PromptGroup(self.take(prompt), [self.take(self._random.randint(*completion)) for _ in range(size)], pairs)
            for _ in range(count)
        ]

    def best_of(self, count: int, *, size: int, prompt: int, answers: Sequence[str]) -> list[PromptGroup]:
        """Groups to score: a prompt of ``prompt`` tokens and ``size`` different real answers."""
        return [PromptGroup(self.take(prompt), self._random.sample(answers, size)) for _ in range(count)]


def unique_tokens(groups: Iterable[EncodedGroup]) -> int:
    """Tokens of some groups, the shared prefix of each counted once."""
    return sum(sum(g.lengths) - g.prefix_length * (len(g.sequences) - 1) for g in groups)


def non_embedding_parameters(model: torch.nn.Module) -> int:
    """Parameters that multiply every token: all but the embeddings."""
    embeddings = model.get_input_embeddings().weight
    return sum(p.numel() for p in model.parameters() if p is not embeddings)


class TokenCounter:
    """Counts the ids that a model's embedding is given while ``active``: what is computed, not what should be."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.active = True
        self.count = 0
        model.get_input_embeddings().register_forward_hook(self._add)

    def _add(self, _module: object, arguments: tuple[torch.Tensor, ...], _output: object) -> None:
        if self.active:
            self.count += arguments[0].numel()
