"""A base model -> a model ready to be trained into a reward model, and back into one plain checkpoint.

What goes wrong with reward models mostly goes wrong here: a padding id that is the EOS id moves the read-out, a head
that LoRA does not save is lost, a head drawn before the seed is set differs between runs. So this file settles
template, padding, head, dropout and adapters in one place, before any optimiser sees the model.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch import nn
from transformers import AddedToken
from transformers.pytorch_utils import Conv1D

from rewardlab.data.template import SealedTemplate, seal_chat_template
from rewardlab.errors import CheckpointError, ConfigError, MissingDependencyError
from rewardlab.modeling.contract import Contract, load_contract
from rewardlab.modeling.declared_size import require_declared_size
from rewardlab.modeling.ensemble_heads import initialise_heads, load_heads, use_heads
from rewardlab.modeling.head import head_name, initialise_head, use_float32_head
from rewardlab.modeling.loading import (
    load_config,
    load_tokenizer,
    model_class,
    quiet_transformers,
    require_finite,
    require_safetensors,
    resolve_folder,
)
from rewardlab.types import ReadOut

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

Mode: TypeAlias = Literal["full", "lora", "head_only"]


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Low-rank adapters on every linear layer of the trunk; the head is always trained and saved beside them.

    Attributes:
        rank: Rank of the adapters.
        alpha: Their scale is alpha / rank.
        dropout: Dropout on the adapters' input.
        load_in_4bit: QLoRA: hold the trunk in 4-bit NF4 (needs a CUDA device and bitsandbytes).
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    load_in_4bit: bool = False


@dataclass(frozen=True, slots=True)
class PreparedModel:
    """A model ready to be trained.

    Attributes:
        model: The model (a PEFT model in LoRA mode), its parameters in float32.
        tokenizer: Its tokenizer, template sealed and padding distinct.
        template: What sealing found.
        folder: The base model's folder.
        new_head: Whether the head was drawn anew; False where a reward model is trained further.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    template: SealedTemplate
    folder: Path
    new_head: bool


def prepare_for_training(
    source: str | Path,
    *,
    seed: int,
    mode: Mode = "full",
    lora: LoraOptions | None = None,
    disable_dropout: bool = True,
    trust_remote_code: bool = False,
    read_out: ReadOut | None = None,
    ensemble_heads: int = 1,
) -> PreparedModel:
    """Load a base model (decoder or encoder) with one head, or with several.

    Args:
        source: Local folder or hub id of a base model, or of a reward model to train further.
        seed: Seed of the head's start.
        mode: Which parameters are trained: ``"full"``, ``"lora"`` (adapters and head), ``"head_only"``.
        lora: Adapter options for mode ``"lora"``.
        disable_dropout: Set every dropout probability of the model to 0, so that both completions of a pair, and
            training and scoring, see the same network.
        trust_remote_code: Run the repository's own Python code.
        read_out: What the head gives numbers for; by default one score for the sequence. For steps, the tokenizer is
            given the separator as a special token where it has none.
        ensemble_heads: How many heads the trunk gets, each with its own start; their mean becomes the model's score. A
            reward model that has as many is trained further; of another, the heads start anew.

    Raises:
        CheckpointError: The base model cannot be used; the message says why.
    """
    read_out = read_out or ReadOut()
    folder = resolve_folder(source)
    config = load_config(folder, trust_remote_code=trust_remote_code)
    require_safetensors(folder)
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    template = seal_chat_template(tokenizer)
    _set_labels(config, read_out, ensemble_heads)
    config.use_cache = False
    lora = lora or LoraOptions()
    classes = model_class(read_out.kind)
    if config.model_type not in [c.model_type for c in classes._model_mapping]:
        name = "*ForSequenceClassification" if read_out.kind == "sequence" else "*ForTokenClassification"
        raise CheckpointError(
            f"{folder}: transformers has no {name} class for model type {config.model_type!r}",
            hint="choose a model family that has one (Llama, Qwen, Mistral, Gemma, BERT, DeBERTa, ModernBERT, ...)",
        )
    require_declared_size(folder, config, classes)
    before = load_contract(folder)
    heads = load_heads(folder, before) if ensemble_heads > 1 else None
    heads = heads if heads is not None and len(heads) == ensemble_heads else None
    model, absent = _load_base(folder, config, mode, lora, read_out, trust_remote_code=trust_remote_code)
    new_layers = _new_layers(folder, model, absent)
    new_head = _starts_anew(folder, model, absent, before, read_out, ensemble_heads, has_heads=heads is not None)
    require_finite(folder, model)
    _use_distinct_pad(model, tokenizer, template)
    if read_out.separator is not None:
        _add_separator(model, tokenizer, read_out.separator)
    head = use_float32_head(model)
    if heads is not None:
        use_heads(model, heads)
    elif ensemble_heads > 1:
        initialise_heads(head, seed)
    elif new_head:
        initialise_head(head, seed)
    if disable_dropout:
        set_dropout_to_zero(model)
    if mode == "head_only":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in new_layers or not name.startswith(f"{model.base_model_prefix}."))
    trained = with_adapters(model, lora, new_layers) if mode == "lora" else model
    return PreparedModel(trained, tokenizer, template, folder, new_head)


def merged(model: nn.Module) -> PreTrainedModel:
    """The plain transformers model: adapters merged into their layers, the trained head in place of the first one."""
    if not hasattr(model, "merge_and_unload"):
        return inner_model(model)
    plain: PreTrainedModel = cast(Any, model).merge_and_unload()
    use_float32_head(plain)
    return plain


def inner_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, adapters active; the model itself where there is none."""
    return cast(Any, model).get_base_model() if hasattr(model, "get_base_model") else cast("PreTrainedModel", model)


def set_dropout_to_zero(model: nn.Module) -> None:
    """Set every dropout probability of a model to 0; that of adapters, which one asks for, stays.

    Both completions of a pair, and training and scoring, then see the same network.
    """
    for module, field in _random_fields(model, adapters=False):
        setattr(module, field, 0.0)


def require_fitting_head(model: PreTrainedModel, read_out: ReadOut, ensemble_heads: int = 1) -> None:
    """Refuse a model whose head is not of the kind that is to be trained.

    Raises:
        ConfigError: It is not.
    """
    is_token = "TokenClassification" in type(model).__name__
    expected = ensemble_heads if ensemble_heads > 1 else read_out.num_classes
    if is_token == (read_out.kind == "sequence") or model.config.num_labels != expected:
        raise ConfigError(
            f"{type(model).__name__} with {model.config.num_labels} labels cannot be read per {read_out.kind} with "
            f"{expected}",
            hint="prepare the model for the objective: prepare_for_training(..., read_out=arguments.read_out, "
            "ensemble_heads=arguments.ensemble_heads)",
        )


def require_distinct_pad(pad_id: int | None, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse what would read the score at the wrong token, in silence.

    Raises:
        ConfigError: The model's padding id is not the tokenizer's, or is an id that sequences end with.
    """
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    if pad_id is None or pad_id != tokenizer.pad_token_id or pad_id in ends:
        raise ConfigError(
            f"the model's pad_token_id is {pad_id} and the tokenizer's {tokenizer.pad_token_id}; they must be one id, "
            "and not that of the EOS: else the score is read at another token",
            hint="prepare the model with rewardlab.modeling.preparing.prepare_for_training",
        )


def drops_out(model: nn.Module, *, adapters: bool = False) -> bool:
    """Whether anything in a model is random while it is trained.

    Args:
        model: The model.
        adapters: Look at the dropout of adapters instead of the model's own.
    """
    return any(getattr(module, field) for module, field in _random_fields(model, adapters=adapters))


def _random_fields(model: nn.Module, *, adapters: bool) -> Iterator[tuple[nn.Module, str]]:
    """Where a model keeps the probabilities and amplitudes of its randomness.

    Attention modules, layers and routers hold theirs as a plain number, under one of a few names.
    """
    for name, module in model.named_modules():
        if ("lora_dropout" in name) != adapters:
            continue
        if isinstance(module, nn.Dropout):
            yield module, "p"
        for field, value in list(vars(module).items()):
            if isinstance(value, float) and (
                "dropout" in field or field.endswith(("pdrop", "layerdrop")) or "jitter" in field
            ):
                yield module, field


def _set_labels(config: PreTrainedConfig, read_out: ReadOut, ensemble_heads: int) -> None:
    """What the config says of the head, for us and for others who load the model."""
    config.num_labels = ensemble_heads if ensemble_heads > 1 else read_out.num_classes
    if read_out.kind == "sequence":
        # Without it vLLM and the transformers pipeline return a sigmoid of the score.
        config.problem_type = "regression"
    else:
        names = {1: ("correct",), 2: ("incorrect", "correct"), 3: ("incorrect", "neutral", "correct")}
        config.id2label = dict(enumerate(names[read_out.num_classes]))
        config.label2id = {name: number for number, name in config.id2label.items()}


def _load_base(
    folder: Path, config: PreTrainedConfig, mode: Mode, lora: LoraOptions, read_out: ReadOut, *, trust_remote_code: bool
) -> tuple[PreTrainedModel, set[str]]:
    """The model, and which of its parameters the folder does not hold."""
    quantization: dict[str, Any] = {}
    if mode == "lora" and lora.load_in_4bit:
        quantization["quantization_config"] = _four_bit_config()
    with quiet_transformers():
        model, report = model_class(read_out.kind).from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            **quantization,
        )
    return model, set(report["missing_keys"]) | {str(key[0]) for key in report["mismatched_keys"]}


def _new_layers(folder: Path, model: PreTrainedModel, absent: set[str]) -> set[str]:
    """Which parameters beside the head's start anew."""
    head, trunk = head_name(model), model.base_model_prefix
    # A masked-language model has no pooler and no classification layers; those start anew with the head.
    new_layers = sorted(
        k for k in absent if not k.startswith(head) and (not k.startswith(trunk + ".") or ".pooler." in k)
    )
    lost = sorted(k for k in absent if k.startswith(trunk + ".") and ".pooler." not in k)
    if lost:
        raise CheckpointError(
            f"{folder}: {len(lost)} weights of the trunk are missing or of another shape than the config "
            f"says: {lost[:3]}",
            hint="the folder was not copied whole, or config.json belongs to another model",
        )
    if new_layers:
        logger.warning("%s has no %s: these start anew, with the head", folder, ", ".join(new_layers))
    return set(new_layers)


def _starts_anew(
    folder: Path,
    model: PreTrainedModel,
    absent: set[str],
    before: Contract | None,
    read_out: ReadOut,
    ensemble_heads: int,
    *,
    has_heads: bool,
) -> bool:
    """Whether the head is drawn; says so where the folder has one."""
    # Several labels of others are a classifier's classes.
    new_head = any(key.startswith(head_name(model)) for key in absent) if ensemble_heads == 1 else not has_heads
    # The heads of two kinds can have one shape, and still mean other things.
    new_head = new_head or (before is not None and before.head.kind != read_out.kind)
    if not new_head:
        of = f", of the objective {before.objective.get('name')}" if before else ""
        logger.warning("%s already has a trained head%s: training goes on from it", folder, of)
    elif before is not None:
        what = f"{before.head.kind} with {len(before.heads) or before.head.num_classes} outputs"
        logger.warning("%s has a head of the kind %s, which does not fit: it starts anew", folder, what)
    return new_head


def _four_bit_config() -> Any:
    from transformers import BitsAndBytesConfig

    if not torch.cuda.is_available():
        raise ConfigError("QLoRA (load_in_4bit) needs a CUDA device, and there is none", hint="use --lora without it")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("QLoRA needs bitsandbytes", hint="pip install bitsandbytes") from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score", "classifier"],
    )


def with_adapters(model: PreTrainedModel, lora: LoraOptions, new_layers: set[str]) -> nn.Module:
    """The model with adapters on every linear layer of its trunk; the rest of the trunk frozen.

    Args:
        model: The model, in memory or on the meta device.
        lora: Their options.
        new_layers: Layers that start anew, by name: they are trained in full.

    Raises:
        MissingDependencyError: PEFT is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    except ImportError as error:
        raise MissingDependencyError("LoRA needs peft", hint="pip install 'rewardlab[lora]'") from error
    trunk = model.base_model_prefix
    # Full names: a bare suffix such as "dense" would also match layers outside the trunk.
    in_full = {name.rpartition(".")[0] for name in new_layers if name.startswith(f"{trunk}.")}
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and name.split(".")[0] == trunk and name not in in_full
    ]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        # What starts anew is trained in full and saved: all outside the trunk, and a pooler that the base has not.
        modules_to_save=sorted({name.split(".")[0] for name, _ in model.named_parameters()} - {trunk} | in_full),
        task_type="SEQ_CLS" if "SequenceClassification" in type(model).__name__ else "TOKEN_CLS",
    )
    if lora.load_in_4bit:
        model = prepare_model_for_kbit_training(model)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a name that it has since renamed.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        return get_peft_model(model, config)


def _use_distinct_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: SealedTemplate) -> None:
    """Pad with an id that nothing ends with, so that transformers (last id that is not pad) reads the end token."""
    end_id = tokenizer.convert_tokens_to_ids(template.end_token)
    new = tokenizer.pad_token_id is None or tokenizer.pad_token_id in {end_id, tokenizer.eos_token_id}
    if new:
        logger.info("padding token %r would move the read-out; <|pad|> takes its place", tokenizer.pad_token)
    settle_padding(model, tokenizer, new=new)


def settle_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, new: bool) -> None:
    """Let model and tokenizer pad on the right with one id.

    Args:
        model: The model; its embedding gets a row for a new token, which no score reads.
        tokenizer: Its tokenizer.
        new: Whether ``<|pad|>`` takes the place of the tokenizer's padding token.
    """
    if new:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        _make_room(model, tokenizer)
    tokenizer.padding_side = "right"
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    model.config.pad_token_id = tokenizer.pad_token_id


def _add_separator(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, separator: str) -> None:
    """Make the step separator one special token, so that a step's boundary is an id and cannot merge with text.

    A new token starts as the mean of what ends sentences and lines, since nothing has trained it; where adapters or a
    head alone are trained it stays there.
    """
    taken = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.sep_token, tokenizer.cls_token}
    if separator in taken:
        raise ConfigError(
            f"step_separator {separator!r} is a token with another meaning in this tokenizer",
            hint="choose one that no text holds; the default, <|step|>, is added to the tokenizer",
        )
    known = len(tokenizer)
    tokenizer.add_tokens([AddedToken(separator, normalized=False)], special_tokens=True)
    _make_room(model, tokenizer)
    number = cast(int, tokenizer.convert_tokens_to_ids(separator))
    if number < known:
        return  # the vocabulary had it
    ends = tokenizer(".\n", add_special_tokens=False)["input_ids"]
    weight = cast(nn.Embedding, model.get_input_embeddings()).weight
    with torch.no_grad():
        weight[number] = weight[ends].mean(dim=0)


def _make_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give the embedding a row for each token."""
    if len(tokenizer) > cast(nn.Embedding, model.get_input_embeddings()).num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
