"""A small policy that answers in the demo world: what best-of-N and reinforcement learning are tried out on.

    folder = build_policy("policy")
    model, tokenizer = load_policy_model(folder)
    answers = sample(model, tokenizer, ["What is 2 plus 3?"], n=4, seed=0)

The demo's tokenizer and decoder, trained from nothing by plain next-token prediction on what the world's sampler
writes, so that it answers nearly as well, and as variedly, as the sampler does. It reads prompts and draws text; of
rewards and of the truth it knows nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rewardlab.data.template import begin_token, quoted, render, seal_chat_template, tokenize
from rewardlab.modeling.loading import quiet_transformers
from rewardlab.studies.demo import DemoSize, build_base_model
from rewardlab.studies.world import SUBSETS, sample_completion, sample_prompt
from rewardlab.types import PromptGroup, Text, conversation

_BATCHES_PER_REPORT = 200


@dataclass(frozen=True, slots=True)
class PolicySize:
    """How large a policy is. The defaults take about a minute and a half on one core; tests use less.

    Attributes:
        num_pairs: Prompts, each with one completion, that it learns from, in one pass.
        vocabulary: Tokens of the tokenizer.
        hidden_size: Width of the decoder.
        num_heads: Its attention heads, 32 wide.
        num_layers: Its layers.
        learning_rate: Peak learning rate.
        batch_size: Pairs per step.
    """

    num_pairs: int = 20_000
    vocabulary: int = 1024
    hidden_size: int = 64
    num_heads: int = 4
    num_layers: int = 2
    learning_rate: float = 4e-3
    batch_size: int = 32


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion that a policy drew.

    Attributes:
        text: The completion, without special tokens.
        ids: Its tokens, the end token included where there is one.
        ended: Whether it ended by itself, and not at the longest length.
        log_prob: Log-probability of ``ids`` under the policy at temperature 1, in nats.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool
    log_prob: float


def build_policy(
    folder: str | Path,
    *,
    seed: int = 0,
    size: PolicySize | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Path:
    """Train a policy on the world's own completions and save it as any Hugging Face model is.

    Its tokenizer has a chat template that ends a prompt where the completion's first token follows, so that TRL's
    conversational prompts, :func:`sample` and the sealed template of ``rewardlab`` give the same ids.

    Args:
        folder: Where to.
        seed: Seed of data, weights and order.
        size: How large; by default as in :class:`PolicySize`.
        report: Called with a line now and then.

    Returns:
        The folder.
    """
    size, folder = size or PolicySize(), Path(folder)
    rng = Random(seed)
    prompts = [sample_prompt(rng, rng.choice(SUBSETS)) for _ in range(size.num_pairs)]
    pairs = [(prompt, sample_completion(rng, prompt)) for prompt in prompts]
    shape = DemoSize(
        vocabulary=size.vocabulary,
        hidden_size=size.hidden_size,
        num_heads=size.num_heads,
        num_layers=size.num_layers,
    )
    build_base_model(folder, (PromptGroup(prompt, (completion,)) for prompt, completion in pairs), shape, seed)
    model, tokenizer = load_policy_model(folder)
    tokenizer.chat_template = _chat_template(tokenizer)
    seal_chat_template(tokenizer)
    _train(model, [_encode(tokenizer, *pair) for pair in pairs], size, report)
    model.generation_config = GenerationConfig(
        do_sample=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id
    )
    with quiet_transformers():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def load_policy_model(folder: str | Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The policy in eval mode, float32, on the CPU, and its tokenizer.

    Args:
        folder: From :func:`build_policy`, or what a trainer made of it.
    """
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval(), tokenizer


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    *,
    n: int,
    seed: int,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    batch: int = 256,
) -> list[list[Sample]]:
    """Draw ``n`` completions of each prompt.

    The global random state is left alone. What is drawn depends on the seed and on how the sequences fall into batches.

    Args:
        model: A policy, in eval mode.
        tokenizer: Its tokenizer.
        prompts: Text or messages.
        n: Completions of each.
        seed: Seed of the draws.
        temperature: What logits are divided by before a token is drawn.
        max_new_tokens: Longest completion, in tokens.
        batch: Sequences drawn at once.

    Returns:
        A list of ``n`` for each prompt.
    """
    generator = torch.Generator().manual_seed(seed)
    owners = [index for index in range(len(prompts)) for _ in range(n)]
    samples: list[Sample] = []
    for start in range(0, len(owners), batch):
        own = owners[start : start + batch]
        encoded = [_prompt_ids(tokenizer, prompts[index]) for index in range(own[0], own[-1] + 1)]
        places = torch.tensor([index - own[0] for index in own])
        ids, each = _draw(model, encoded, places, tokenizer, generator, temperature, max_new_tokens)
        for drawn, log_prob in zip(ids, each, strict=True):
            text = str(tokenizer.decode(drawn, skip_special_tokens=True))
            samples.append(Sample(text, tuple(drawn), drawn[-1] == tokenizer.eos_token_id, log_prob))
    return [samples[start : start + n] for start in range(0, len(samples), n)]


@torch.inference_mode()
def log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    samples: Sequence[Sequence[Sample]],
    *,
    batch: int = 128,
) -> list[list[float]]:
    """Log-probability of each sample's ids, after its prompt, under a model, in nats.

    With the model that drew them these are their ``log_prob``.

    Args:
        model: A policy with the same tokenizer, in eval mode.
        tokenizer: The tokenizer.
        prompts: Text or messages.
        samples: As many lists as prompts.
        batch: Sequences in one forward.

    Returns:
        As ``samples``.
    """
    rows = [
        (ids, drawn.ids)
        for prompt, own in zip(prompts, samples, strict=True)
        for ids in [_prompt_ids(tokenizer, prompt)]
        for drawn in own
    ]
    found: list[float] = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        found += (-_losses(model, part, tokenizer.pad_token_id).double().sum(1)).tolist()
    values = iter(found)
    return [[next(values) for _ in own] for own in samples]


def log_ratios(
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Text],
    samples: Sequence[Sequence[Sample]],
) -> list[list[float]]:
    """Log-ratios of whole completions, log pi - log pi_ref, in nats, where pi is the policy that drew them.

    Their mean estimates KL(pi || pi_ref), without bias where they were drawn at temperature 1 (the estimator k1).

    Args:
        reference: A policy with the same tokenizer, in eval mode.
        tokenizer: The tokenizer.
        prompts: Text or messages.
        samples: As many lists as prompts.

    Returns:
        As ``samples``.
    """
    under_reference = log_probs(reference, tokenizer, prompts, samples)
    return [
        [drawn.log_prob - other for drawn, other in zip(own, others, strict=True)]
        for own, others in zip(samples, under_reference, strict=True)
    ]


def _draw(
    model: PreTrainedModel,
    prompts: list[list[int]],
    places: Tensor,
    tokenizer: PreTrainedTokenizerBase,
    generator: torch.Generator,
    temperature: float,
    max_new_tokens: int,
) -> tuple[list[list[int]], list[float]]:
    """Ids and log-probability of a completion of ``prompts[places[i]]`` for each i.

    ``generate`` computes each prompt as often as it is completed, and all rows until the last has ended. Here a prompt
    is computed once, and rows that have ended are dropped: a third of the time on these short completions.
    """
    ids, mask = _padded(prompts, tokenizer.pad_token_id, side="left")
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = model(ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1).logits
    cache.batch_select_indices(places)
    logits, mask, positions = logits[places], mask[places], positions[places]
    completions: list[list[int]] = [[] for _ in places]
    sums = torch.zeros(len(places), dtype=torch.float64)
    rows = torch.arange(len(places))  # which completions are still being written
    for step in range(max_new_tokens):
        logits = logits[:, -1].float()
        token = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)
        sums[rows] += logits.log_softmax(-1).gather(1, token)[:, 0]
        for row, own in zip(rows.tolist(), token[:, 0].tolist(), strict=True):
            completions[row].append(own)
        going = (token[:, 0] != tokenizer.eos_token_id).nonzero()[:, 0]
        if not len(going) or step + 1 == max_new_tokens:
            break
        rows = rows[going]
        cache.batch_select_indices(going)
        token = token[going]
        mask = functional.pad(mask[going], (0, 1), value=1)
        positions = positions[going, -1:] + 1
        logits = model(token, attention_mask=mask, position_ids=positions, past_key_values=cache).logits
    return completions, sums.tolist()


def _losses(model: PreTrainedModel, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad: int) -> Tensor:
    """Negative log-probability of each completion token of (prompt ids, completion ids); 0 elsewhere."""
    ids, mask = _padded([[*prompt, *completion] for prompt, completion in rows], pad, side="right")
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(rows):
        wanted[row, len(prompt) : len(prompt) + len(completion)] = True
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    # The head is most of the work: it is for the completions' tokens alone.
    logits = model.get_output_embeddings()(hidden[wanted[:, 1:]])
    losses = functional.cross_entropy(logits.float(), ids[wanted], reduction="none")
    return torch.zeros_like(ids, dtype=torch.float32).masked_scatter(wanted, losses)


def _train(
    model: PreTrainedModel,
    rows: list[tuple[list[int], list[int]]],
    size: PolicySize,
    report: Callable[[str], None],
) -> None:
    """One pass of next-token prediction over the completions' tokens; the rate rises over a tenth and falls to zero."""
    starts = range(0, len(rows), size.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=size.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, size.learning_rate, total_steps=len(starts) + 1, pct_start=0.1, cycle_momentum=False
    )
    model.train()
    for number, start in enumerate(starts):
        part = rows[start : start + size.batch_size]
        losses = _losses(model, part, model.config.pad_token_id)
        loss = losses.sum() / sum(len(completion) for _, completion in part)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if number % _BATCHES_PER_REPORT == 0 or start + size.batch_size >= len(rows):
            report(f"policy: {number + 1} of {len(starts)} steps, {loss.item():.2f} nats per token")
    model.eval()


def _chat_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """``User:`` and ``Assistant:`` lines, each turn on lines of its own.

    Unlike :func:`~rewardlab.data.template.plain_template` an answer begins at the start of a line, not behind a space:
    a list begins with "- ", and what a trainer decodes is the completion itself.
    """
    begin = begin_token(tokenizer)
    return (
        (f"{{{{ {quoted(begin)} }}}}" if begin else "")
        + "{% for message in messages %}{{ message['role'] | capitalize }}:{{ '\\n' }}{{ message['content'] | trim }}"
        + f"{{{{ {quoted(str(tokenizer.eos_token))} if message['role'] == 'assistant' else '\\n\\n' }}}}"
        + "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
    )


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Text) -> list[int]:
    """The ids that a completion follows."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenize(tokenizer, render(tokenizer, messages, add_generation_prompt=True))


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> tuple[list[int], list[int]]:
    """The prompt's ids, and the completion's with the end token; together those of the whole conversation."""
    before = _prompt_ids(tokenizer, prompt)
    return before, tokenize(tokenizer, render(tokenizer, conversation(prompt, completion)))[len(before) :]


def _padded(rows: Sequence[Sequence[int]], pad: int, *, side: str) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, both shape (rows, longest)."""
    longest = max(len(row) for row in rows)
    gaps = [longest - len(row) for row in rows]
    left = side == "left"
    ids = [[pad] * (gap * left) + [*row] + [pad] * (gap * (not left)) for row, gap in zip(rows, gaps, strict=True)]
    mask = [[0] * (g * left) + [1] * len(r) + [0] * (g * (not left)) for r, g in zip(rows, gaps, strict=True)]
    return torch.tensor(ids), torch.tensor(mask)
