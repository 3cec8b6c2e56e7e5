"""The demo: the whole product on a world whose truth is known, without any download.

It makes its own data, tokenizer and base model, and from there on takes the path that every user takes: files are read,
a model is trained for one epoch, loaded again and verified, evaluated on held-out pairs, and a file is scored. Only the
comparison with the truth is its own. How the result looks is :mod:`rewardlab.studies.page`'s.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, set_seed

from rewardlab import __version__
from rewardlab.data.loading import load_groups
from rewardlab.errors import ConfigError
from rewardlab.evaluation.evaluator import Evaluator
from rewardlab.evaluation.report import gather_report, render_report
from rewardlab.files import write_safely
from rewardlab.modeling.loading import quiet_transformers
from rewardlab.modeling.verification import verify_checkpoint
from rewardlab.scoring.bulk import score_file
from rewardlab.scoring.scorer import Scorer
from rewardlab.studies.page import render_page
from rewardlab.studies.result import DemoPaths, DemoResult
from rewardlab.studies.world import World, best_reachable_accuracy, expected_best_accuracy, generate, true_utility
from rewardlab.training.run import train_reward_model
from rewardlab.types import PromptGroup, text_of

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
# Matrices this small lose more to threads waiting for each other than they gain: two threads on two busy cores took
# three times as long as one.
NUM_THREADS = 1


@dataclass(frozen=True, slots=True)
class DemoSize:
    """How large a demo is. The defaults take some two minutes on two cores; tests use less.

    A model that starts from nothing sees each pair once, so it wants small steps, many of them, at a high rate; weights
    drawn larger than usual (0.02) make attention at this width specific enough to learn from.

    Attributes:
        num_train: Training pairs.
        num_held_out: Held-out pairs.
        num_canary: Canary pairs.
        num_fresh: Pairs on which nothing is fitted, neither model nor temperature.
        vocabulary: Tokens of the tokenizer.
        hidden_size: Width of the decoder.
        num_heads: Its attention heads, 32 wide.
        num_layers: Its layers.
        initializer_range: Standard deviation of its untrained weights.
        learning_rate: Peak learning rate.
        batch_size: Pairs per step.
    """

    num_train: int = 16_000
    num_held_out: int = 1_500
    num_canary: int = 200
    num_fresh: int = 1_500
    vocabulary: int = 2048
    hidden_size: int = 64
    num_heads: int = 4
    num_layers: int = 2
    initializer_range: float = 0.1
    learning_rate: float = 3e-3
    batch_size: int = 16


def run_demo(
    output: str | Path, *, seed: int = 0, size: DemoSize | None = None, report: Callable[[str], None] = lambda _: None
) -> DemoResult:
    """Generate, train, verify, evaluate, score, and draw the page.

    Args:
        output: Where everything goes. A former demo's folder is replaced.
        seed: Seed of the world, the decoder and the training.
        size: How large; by default as in :class:`DemoSize`.
        report: Called with one line for each stage.

    Returns:
        What it gave; its ``verification`` says whether the reloaded model gives the scores it promises.

    Raises:
        ConfigError: ``output`` holds something that is not a demo's.
    """
    size = size or DemoSize()
    paths, seconds = DemoPaths(Path(output)), dict[str, float]()
    _make_room(paths)
    threads = torch.get_num_threads()
    torch.set_num_threads(NUM_THREADS)
    try:
        with _timed(seconds, "generate the world"):
            report(f"generating {size.num_train:,} training and {size.num_held_out:,} held-out pairs from seed {seed}")
            world = generate(
                seed,
                n_train=size.num_train,
                n_held_out=size.num_held_out,
                n_canary=size.num_canary,
                n_fresh=size.num_fresh,
            )
            _write_world(paths.data, world)
        with _timed(seconds, "build tokenizer and decoder"):
            report(f"training a tokenizer and building a decoder of {size.num_layers} layers")
            build_base_model(paths.base, world.train, size, seed)
        with _timed(seconds, "train and save"):
            train_groups, held_out = (load_groups(paths.data / f"{name}.jsonl") for name in ("train", "held_out"))
            training = train_reward_model(
                model=paths.base,
                train_groups=train_groups,
                eval_groups=held_out,
                output_dir=paths.model,
                dtype="float32",  # the same figures on every machine
                overrides={
                    "seed": seed,
                    "learning_rate": size.learning_rate,
                    "per_device_train_batch_size": size.batch_size,
                    "gradient_accumulation_steps": 1,
                    "adam_beta2": 0.95,
                    "max_length": 256,
                    "save_strategy": "no",
                    "report_to": "none",
                },
                report=report,
            )
        with _timed(seconds, "verify"):
            report("verifying the saved model, as `rewardlab verify` does")
            verification = verify_checkpoint(paths.model)
        with _timed(seconds, "evaluate"):
            report(f"evaluating on {len(held_out):,} held-out pairs, as `rewardlab evaluate` does")
            scorer = Scorer.from_pretrained(paths.model)
            evaluation = Evaluator(scorer).evaluate(held_out)
            fresh = Evaluator(scorer).evaluate(load_groups(paths.data / "fresh.jsonl"))
        with _timed(seconds, "score a file"):
            report("scoring the held-out file, as `rewardlab score` does")
            score_file(scorer, [paths.data / "held_out.jsonl"], paths.scores)
        with _timed(seconds, "report"):
            report("drawing the model's report, as `rewardlab report` does")
            write_safely(paths.report, render_report(gather_report(str(paths.model))))
    finally:
        torch.set_num_threads(threads)
    result = DemoResult(
        paths=paths,
        seed=seed,
        num_train=size.num_train,
        num_parameters=sum(p.numel() for p in scorer.loaded.model.parameters()),
        held_out=held_out,
        utilities=np.array([_utilities(group) for group in held_out]),
        scores=np.array([[pair.chosen_score, pair.rejected_score] for pair in evaluation.pairs]),
        evaluation=evaluation,
        fresh=fresh,
        best_accuracy=best_reachable_accuracy(held_out),
        expected_best_accuracy=expected_best_accuracy(held_out),
        verification=verification,
        log_history=training.log_history,
        seconds=seconds,
        versions={
            "rewardlab": __version__,
            "Python": platform.python_version(),
            "torch": str(torch.__version__),
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    )
    write_safely(paths.page, render_page(result))
    write_safely(paths.summary, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


def _make_room(paths: DemoPaths) -> None:
    """An empty folder with the demo's mark in it; only what a former demo wrote is removed."""
    if paths.folder.exists() and not paths.folder.is_dir():
        raise ConfigError(f"{paths.folder} is not a folder", hint="name another --output")
    if paths.folder.exists() and any(paths.folder.iterdir()):
        if not paths.summary.exists():
            raise ConfigError(
                f"{paths.folder} holds something that no demo wrote (there is no {paths.summary.name} in it)",
                hint="name another --output",
            )
        for former in (paths.data, paths.base, paths.model):
            shutil.rmtree(former, ignore_errors=True)
        for file in (paths.scores, paths.page, paths.report):
            file.unlink(missing_ok=True)
    paths.folder.mkdir(parents=True, exist_ok=True)
    write_safely(paths.summary, "{}\n")


def _utilities(group: PromptGroup) -> tuple[float, float]:
    """True utilities of the chosen and of the rejected completion of a group with one pair."""
    (pair,) = group.pairs
    chosen, rejected = (true_utility(group.prompt, group.completions[i]) for i in (pair.chosen, pair.rejected))
    return chosen, rejected


def _write_world(folder: Path, world: World) -> None:
    """The pairs as anyone would have them: JSON Lines with prompt, chosen and rejected."""
    folder.mkdir(parents=True)
    splits = {"train": world.train, "held_out": world.held_out, "canary": world.canary, "fresh": world.fresh}
    for name, groups in splits.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for group in groups:
                (pair,) = group.pairs
                row = {
                    "id": group.id,
                    "subset": group.subset,
                    "prompt": group.prompt,
                    "chosen": group.completions[pair.chosen],
                    "rejected": group.completions[pair.rejected],
                }
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


def build_base_model(folder: Path, groups: Iterable[PromptGroup], size: DemoSize, seed: int) -> None:
    """A decoder with random weights and a tokenizer trained on the texts, saved as any base model is."""
    texts = (text_of(text) for group in groups for text in (group.prompt, *group.completions))
    tokenizer = _train_tokenizer(texts, size.vocabulary)
    set_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        intermediate_size=3 * size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        num_key_value_heads=size.num_heads // 2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=size.initializer_range,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with quiet_transformers():
        Qwen3ForCausalLM(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that puts <bos> in front, with a padding token of its own and no chat template."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    pad, bos, eos = SPECIAL_TOKENS
    inner.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, inner.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=pad, bos_token=bos, eos_token=eos)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Note how long a stage took."""
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
