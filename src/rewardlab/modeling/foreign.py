"""Reward models of other frameworks, read from their files, with their scores computed by their own rules.

Each reader gives one :class:`ForeignModel`: a rule that scores ids as that framework does (its hidden states, its head,
its read-out, with padding on the side it pads), and the same weights as a plain ``*ForSequenceClassification``. All in
float32, without pickles and without remote code. What text becomes, what is saved and whether the two scores agree is
:mod:`rewardlab.modeling.importing`'s.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.documents import read_json_object
from rewardlab.errors import CheckpointError, ConfigError
from rewardlab.modeling.contract import FILE_NAME
from rewardlab.modeling.foreign_weights import (
    ADAPTER,
    ADAPTER_CONFIG,
    VALUE_HEAD,
    checked_head,
    classifier,
    files_of_tensors,
    listed,
    load_whole,
    names_of,
    read_tensor,
    with_adapter,
)
from rewardlab.modeling.forward import pad
from rewardlab.modeling.head import head_name, is_decoder
from rewardlab.modeling.loading import (
    load_config,
    load_tokenizer,
    open_safetensors,
    require_safetensors,
    resolve_folder,
)
from rewardlab.modeling.preparing import merged

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_PICKLES = {"value_head.bin": VALUE_HEAD, "adapter_model.bin": ADAPTER}
_OPENRLHF_KEYS = ("value_head_prefix", "normalize_reward")
_EXTRA = 2  # columns of padding in every scored row: their read-outs must pass over it


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A reward model as another framework has it.

    Attributes:
        framework: ``"llama-factory"``, ``"openrlhf"``, ``"peft"`` or ``"transformers"``.
        tokenizer: Its tokenizer, as it is.
        config: Its config.
        score: Ids of one sequence -> its score, by that framework's rule.
        converted: Gives the same weights as a plain model; takes the model that ``score`` uses apart, so call it last.
        skipped_id: Id that its read-out passes over at the end of a sequence, be it padding or not; None where it goes
            by the attention mask.
        appends_eos: Whether it ends every text with the EOS token itself, whatever the template wrote.
        offset: What its score has on top of that of ``converted``, which has no bias.
        reference: Statistics of its scores, where it carries some.
        details: What the contract should record of it; plain JSON.
    """

    framework: str
    tokenizer: PreTrainedTokenizerBase
    config: PreTrainedConfig
    score: Callable[[Sequence[int]], float]
    converted: Callable[[], PreTrainedModel]
    skipped_id: int | None = None
    appends_eos: bool = False
    offset: float = 0.0
    reference: ReferenceStatistics | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def read_foreign(folder: Path, *, base: str | Path | None, device: torch.device) -> ForeignModel:
    """Read the reward model in a folder, whichever framework wrote it.

    Args:
        folder: The folder.
        base: The base model of an adapter; by default the one that its config names.
        device: Where to score.

    Raises:
        CheckpointError: It is no reward model that can be imported; the message lists what was found.
        ConfigError: ``base`` was given for a folder that is no adapter, or an adapter names none.
    """
    files = {path.name for path in folder.iterdir()}
    for pickle, safe in _PICKLES.items():
        if pickle in files and safe not in files:
            raise CheckpointError(
                f"{folder}: {pickle} is pickled; loading a pickle can run any code",
                hint=f"have it converted to {safe} by someone who trusts the file",
            )
    if (folder / FILE_NAME).exists():
        raise CheckpointError(f"{folder}: already a rewardlab model ({FILE_NAME})", hint="use it as it is")
    is_adapter = ADAPTER_CONFIG in files
    if base is not None and not is_adapter:
        raise ConfigError(
            f"{folder} has no {ADAPTER_CONFIG}: only an adapter has a base model", hint="leave out --base"
        )
    if VALUE_HEAD in files:
        return _llama_factory(folder, base, device)
    if is_adapter:
        return _peft(folder, base, device)
    if "config.json" not in files:
        raise CheckpointError(
            f"{folder}: expected config.json, {ADAPTER_CONFIG} or {VALUE_HEAD}, found {listed(files)}",
            hint="docs/importing.md lists what can be imported",
        )
    require_safetensors(folder)
    record, names = read_json_object(folder / "config.json", CheckpointError), set(files_of_tensors(folder))
    if any(key in record for key in (*_OPENRLHF_KEYS, "mean")) or "value_head.weight" in names:
        return _openrlhf(folder, record, names, device)
    return _transformers(folder, names, device)


def _llama_factory(folder: Path, base: str | Path | None, device: torch.device) -> ForeignModel:
    """A causal model or adapter with TRL's value head beside it.

    The score is a linear layer with bias on the last hidden states, after the final norm, at the last attended token.

    References:
        hiyouga/LLaMA-Factory ``src/llamafactory/train/callbacks.py`` (``fix_valuehead_checkpoint``: the files),
        ``src/llamafactory/chat/hf_engine.py`` (``_get_scores``); huggingface/trl ``ValueHead`` (dropout, linear).
    """
    with open_safetensors(folder / VALUE_HEAD) as file:
        head = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a mapping
    model_folder = _base_folder(folder, base) if (folder / ADAPTER_CONFIG).exists() else folder
    config = load_config(model_folder)
    weight, bias = checked_head(folder, head, "v_head.summary", config)
    causal = load_whole(AutoModelForCausalLM, model_folder, config)
    model: nn.Module = causal if model_folder == folder else with_adapter(folder, causal)
    model.eval().to(device)

    @torch.inference_mode()
    def score(ids: Sequence[int]) -> float:
        batch = {name: tensor.to(device) for name, tensor in pad([ids], 0, extra=_EXTRA).items()}
        mask = batch["attention_mask"]
        out = model(input_ids=batch["input_ids"], attention_mask=mask, output_hidden_states=True)
        values = functional.linear(out.hidden_states[-1], weight.to(device), bias.to(device))
        return float(values[0, int(mask.sum()) - 1, 0])

    def converted() -> PreTrainedModel:
        plain = causal if model_folder == folder else cast(Any, model).merge_and_unload()
        return classifier(cast(Any, plain).base_model, weight)

    details = {"score_offset": float(bias), **_adapter_details(folder, model_folder)}
    tokenizer = _tokenizer_of(folder, model_folder)
    return ForeignModel("llama-factory", tokenizer, config, score, converted, offset=float(bias), details=details)


def _openrlhf(folder: Path, record: Mapping[str, Any], names: set[str], device: torch.device) -> ForeignModel:
    """A trunk with ``score`` or ``value_head``, read at the last attended token; mean and std in the config.

    References:
        OpenRLHF/OpenRLHF ``openrlhf/models/model.py`` (``_get_reward_model``), ``openrlhf/datasets/reward_dataset.py``.
    """
    prefix = record.get("value_head_prefix") or next((n for n in ("value_head", "score") if f"{n}.weight" in names), "")
    config = load_config(folder)
    head = {name: read_tensor(folder, name) for name in names if name.startswith(f"{prefix}.")}
    weight, bias = checked_head(folder, head, prefix or "value_head", config)
    tokenizer = load_tokenizer(folder)
    if tokenizer.eos_token is None:
        raise CheckpointError(
            f"{folder}: the tokenizer has no eos_token, at which OpenRLHF reads the score",
            hint="save the tokenizer that the model was trained with into the folder",
        )
    trunk = load_whole(AutoModel, folder, config).eval().to(device)
    takes_positions = "position_ids" in inspect.signature(trunk.forward).parameters

    @torch.inference_mode()
    def score(ids: Sequence[int]) -> float:
        batch = {name: tensor.to(device) for name, tensor in pad([ids], 0, side="left", extra=_EXTRA).items()}
        mask = batch["attention_mask"]
        positions = {"position_ids": batch["position_ids"]} if takes_positions else {}
        hidden = trunk(input_ids=batch["input_ids"], attention_mask=mask, **positions).last_hidden_state
        values = functional.linear(hidden, weight.to(device), bias.to(device))
        return float(values[0, int(mask[0].nonzero().max()), 0])

    details = {key: record[key] for key in (*_OPENRLHF_KEYS, "mean", "std") if key in record}
    mean, std = record.get("mean"), record.get("std")
    if (mean is None) != (std is None) or (std is not None and not float(std) > 0):
        raise CheckpointError(
            f"{folder}/config.json: mean is {mean} and std is {std}, expected neither, or two numbers with std above 0",
            hint="restore the config that OpenRLHF wrote",
        )
    reference = None
    if mean is not None and std is not None:
        # OpenRLHF does not say of how many scores, nor which quantiles they had.
        reference = ReferenceStatistics("openrlhf config", 0, float(mean), float(std), {})
    if float(bias):
        details["score_offset"] = float(bias)
    return ForeignModel(
        "openrlhf",
        tokenizer,
        config,
        score,
        lambda: classifier(trunk, weight),
        appends_eos=True,
        offset=float(bias),
        reference=reference,
        details=details,
    )


def _peft(folder: Path, base: str | Path | None, device: torch.device) -> ForeignModel:
    """A LoRA adapter of a classifier, scored unmerged; its head must have been saved with it, or be the base's."""
    base_folder = _base_folder(folder, base)
    require_safetensors(base_folder)
    config = load_config(base_folder)
    config.num_labels = 1
    model = load_whole(AutoModelForSequenceClassification, base_folder, config, head_may_lack=True)
    head, decoder = head_name(model), is_decoder(model)  # asked before PEFT puts its layers in
    in_base = f"{head}.weight" in files_of_tensors(base_folder)
    saved = [name for name in names_of(folder / ADAPTER) if f".{head}." in name and "lora_" not in name]
    if not saved and not in_base:
        raise CheckpointError(
            f"{folder}: there is no trained head: neither {ADAPTER} nor {base_folder} has {head}.weight",
            hint="the head was lost when the adapter was saved (LoRA without modules_to_save); it cannot be got back",
        )
    # TRL trains with the tokenizer's padding token in the config, which an adapter folder does not hold.
    own_tokenizer = (folder / "tokenizer_config.json").exists()
    tokenizer = _tokenizer_of(folder, base_folder)
    if own_tokenizer and tokenizer.pad_token_id is not None:
        config.get_text_config().pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    adapted = with_adapter(folder, model).eval().to(device)
    details = _adapter_details(folder, base_folder)
    return _by_transformers("peft", adapted, tokenizer, config, decoder, device, details)


def _transformers(folder: Path, names: set[str], device: torch.device) -> ForeignModel:
    """A plain classifier: transformers' own rule, which reads the last id that is not the config's padding id."""
    config = load_config(folder)
    stated, architectures = config.num_labels, config.architectures or []
    if any("ForTokenClassification" in name for name in architectures):
        raise CheckpointError(
            f"{folder}: {architectures[0]} gives a number to every token, and only models of one score are imported",
            hint="with one label, it is scored as it is, without a contract",
        )
    if stated != 1 and any("ForSequenceClassification" in name for name in architectures):
        raise CheckpointError(f"{folder}: a classifier of {stated} labels, a reward model has exactly one")
    config.num_labels = 1
    model = load_whole(AutoModelForSequenceClassification, folder, config, head_may_lack=True)
    head = head_name(model)
    if f"{head}.weight" not in names:
        raise CheckpointError(
            f"{folder}: there is no trained head: expected {head}.weight in the weights, {VALUE_HEAD} or an adapter; "
            f"found {listed({path.name for path in folder.iterdir()})}; architectures {architectures}",
            hint="this is a base model, or its head was not saved; docs/importing.md lists what can be imported",
        )
    model.eval().to(device)
    return _by_transformers("transformers", model, load_tokenizer(folder), config, is_decoder(model), device, {})


def _by_transformers(
    framework: str,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    config: PreTrainedConfig,
    decoder: bool,
    device: torch.device,
    details: Mapping[str, Any],
) -> ForeignModel:
    pad_id = config.get_text_config().pad_token_id

    @torch.inference_mode()
    def score(ids: Sequence[int]) -> float:
        # Without a padding id transformers reads the last id, and refuses a batch of more than one.
        batch = pad([ids], pad_id or 0, extra=0 if pad_id is None else _EXTRA)
        inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
        return float(model(**inputs).logits[0, 0])

    skipped = pad_id if decoder else None
    return ForeignModel(framework, tokenizer, config, score, lambda: merged(model), skipped_id=skipped, details=details)


def _base_folder(folder: Path, base: str | Path | None) -> Path:
    named = base or read_json_object(folder / ADAPTER_CONFIG, CheckpointError).get("base_model_name_or_path")
    if not named:
        raise ConfigError(f"{folder}: the adapter names no base model", hint="name it with --base")
    try:
        return resolve_folder(named)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: its base model: {error.message}", hint="name it with --base") from error


def _adapter_details(folder: Path, model_folder: Path) -> dict[str, Any]:
    if model_folder == folder:
        return {}
    record = read_json_object(folder / ADAPTER_CONFIG, CheckpointError)
    kept = {key: record.get(key) for key in ("r", "lora_alpha", "use_rslora", "use_dora", "modules_to_save")}
    return {"base_model": record.get("base_model_name_or_path"), "adapter": kept}


def _tokenizer_of(folder: Path, base_folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder if (folder / "tokenizer_config.json").exists() else base_folder)
