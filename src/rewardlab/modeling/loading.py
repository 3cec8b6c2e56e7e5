"""A reward model from a folder or hub id, or a clear refusal.

What cannot be trusted to give scores is refused with the reason: no trained head (transformers would draw one at
random), weights that are not finite, pickled weights, code that would have to be run. Models of others, without a
contract, load too; transformers' own forward is the truth for them, and what was assumed is kept in ``notes``.
"""

from __future__ import annotations

import hashlib
import logging
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from rewardlab.data.encoding import Encoder
from rewardlab.data.fixed_template import asks_clock
from rewardlab.data.template import begin_token, chat_template_of, plain_template, seal_chat_template
from rewardlab.documents import RESTORE, read_json_object, require_regular, require_regular_files
from rewardlab.errors import CheckpointError, ConfigError, RewardLabError, first_line
from rewardlab.modeling.contract import FILE_NAME, Contract, load_contract
from rewardlab.modeling.declared_size import require_declared_size
from rewardlab.modeling.head import head_name, use_float32_head
from rewardlab.types import Kind, ReadOut

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_MOST_LAYERS = 10_000
_FALLBACK_MAX_LENGTH = 4096


@dataclass(frozen=True, slots=True)
class RewardModel:
    """A loaded reward model: everything between text and a score.

    Attributes:
        model: The transformers model, in eval mode on its device, with a float32 head.
        tokenizer: Its tokenizer, whose chat template is the text-to-ids rule.
        contract: Its contract; None for models of others.
        max_length: Longest sequence, in tokens.
        fingerprint: Equal for equal checkpoints.
        read_out: Where the head is read, and how that becomes one score.
        folder: Where it was loaded from.
        notes: What had to be assumed, in words; empty for our own checkpoints.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    contract: Contract | None
    max_length: int
    fingerprint: str
    read_out: ReadOut
    folder: Path
    notes: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """Name of the trunk's dtype."""
        return str(self.model.dtype).removeprefix("torch.")

    def encoder(self, max_length: int | None = None) -> Encoder:
        """The encoder of this model's text.

        Raises:
            ConfigError: ``max_length`` is beyond the model's positions.
        """
        if max_length is None:
            return Encoder(self.tokenizer, self.max_length, self.read_out)
        limit = position_limit(self.model.config, self.tokenizer)
        if max_length < 1 or (limit is not None and max_length > limit):
            raise ConfigError(
                f"max_length {max_length} is not between 1 and the model's {limit or 'unlimited'} positions",
                hint="leave it out to take the model's own",
            )
        return Encoder(self.tokenizer, max_length, self.read_out)


def load_reward_model(
    source: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> RewardModel:
    """Load a reward model without checking its probes (:mod:`rewardlab.modeling.verification` does that).

    Args:
        source: A local folder or a hub id.
        device: Where to; by default the first CUDA device, else the CPU.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``; by default what the checkpoint is saved in.
        trust_remote_code: Run the repository's own Python code. Off by default.

    Returns:
        The model in eval mode.

    Raises:
        CheckpointError: It cannot be trusted to give scores; the message says why.
    """
    where = require_device(device)
    folder = resolve_folder(source)
    contract = load_contract(folder)
    config = load_config(folder, trust_remote_code=trust_remote_code)
    read_out = contract.head if contract else _read_out_of_others(config)
    if config.num_labels != read_out.num_classes:
        if any(name.endswith(("ForCausalLM", "ForMaskedLM")) for name in config.architectures or ()):
            raise CheckpointError(
                f"{folder}: a language model ({(config.architectures or [''])[0]}) without a reward model's head",
                hint="train it first; for an implicit reward name the policy and its reference: POLICY:REFERENCE",
            )
        raise CheckpointError(
            f"{folder}: the config has {config.num_labels} labels, expected {read_out.num_classes}",
            hint="a base model has no head yet (train it first), a classifier is no reward model, and the step "
            "separator of a process model is known from its contract alone",
        )
    require_safetensors(folder)
    require_declared_size(folder, config, model_class(read_out.kind))
    tokenizer = load_tokenizer(folder, trust_remote_code=trust_remote_code)
    torch_type = torch_dtype(dtype)
    with quiet_transformers(), told_of(folder, "the model does not load", "config.json and the weights do not fit"):
        model, report = model_class(read_out.kind).from_pretrained(
            folder,
            config=config,
            dtype=torch_type,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    _require_complete(folder, model, report)
    _require_ids_fit(folder, model, tokenizer, contract)
    _restore_float32_head(folder, model)
    require_finite(folder, model)
    notes = _settle_tokenizer(folder, model, tokenizer, contract)
    for note in notes:
        logger.warning("%s: %s", folder, note)
    model.config.use_cache = False
    model.eval().to(where)
    max_length = contract.max_length if contract else position_limit(config, tokenizer) or _FALLBACK_MAX_LENGTH
    return RewardModel(model, tokenizer, contract, max_length, fingerprint_of(folder), read_out, folder, notes)


def model_class(kind: Kind) -> Any:
    """The transformers class that loads a model of some kind."""
    return AutoModelForSequenceClassification if kind == "sequence" else AutoModelForTokenClassification


def _read_out_of_others(config: PreTrainedConfig) -> ReadOut:
    """The read-out of a model without a contract: a token classifier with one label gives a logit to every token."""
    if any(name.endswith("ForTokenClassification") for name in config.architectures or ()):
        return ReadOut("token", "mean")
    return ReadOut()


def require_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; by default the first CUDA device, else the CPU.

    Raises:
        ConfigError: There is no such device.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"no such device: {device!r}", hint="for example cpu, cuda or cuda:1") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ConfigError(f"there is no {device}: this machine has {count} CUDA devices", hint="use --device cpu")
    return found


def resolve_folder(source: str | Path) -> Path:
    """The local folder of a checkpoint; a hub id is downloaded (safetensors and text files only, never pickles).

    Raises:
        CheckpointError: No such folder, and the hub has no such repository or cannot be reached.
    """
    path = Path(source)
    if os.path.isdir(path):  # which takes any name, where Path.is_dir refuses long ones with an error of its own
        return path
    if os.path.exists(path):
        raise CheckpointError(
            f"{path} is a file, expected a model folder", hint="name the folder that holds config.json"
        )
    if path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") > 1:
        raise CheckpointError(f"no such folder: {path}", hint="check the path")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
        return Path(snapshot_download(str(source), allow_patterns=patterns))
    except Exception as error:  # the hub client's own errors are many and change; each means "not to be had"
        raise CheckpointError(
            f"{source}: no such local folder, and not to be had from the hub: {first_line(error)}",
            hint="check the path or the hub id, and the network",
        ) from error


def load_config(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The model's config.

    Raises:
        CheckpointError: There is none, it does not parse, or it needs remote code.
    """
    path = folder / "config.json"
    if not path.exists():
        adapter = (folder / "adapter_config.json").exists()
        raise CheckpointError(
            f"{folder}: no config.json" + (", only a PEFT adapter" if adapter else ""),
            hint="merge the adapter into its base model first" if adapter else "name the folder that holds config.json",
        )
    record = read_json_object(path, CheckpointError)
    model_type = record.get("model_type")
    known = isinstance(model_type, str) and model_type in CONFIG_MAPPING
    if record.get("auto_map") and not known and not trust_remote_code:
        raise CheckpointError(
            f"{folder}: model type {model_type!r} runs Python code from its repository: {record['auto_map']}",
            hint="read that code first; --trust-remote-code runs it",
        )
    for part in (record, record.get("text_config")):
        layers = part.get("num_hidden_layers") if isinstance(part, dict) else None
        if isinstance(layers, int) and layers > _MOST_LAYERS:  # transformers makes lists of that length
            raise CheckpointError(f"{path}: says {layers:,} layers, and no model has {_MOST_LAYERS:,}", hint=RESTORE)
    with told_of(path, "not a config", "the installed transformers may not know this model type"):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return config


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The model's tokenizer.

    Raises:
        CheckpointError: There is none, or it does not load.
    """
    require_regular_files(folder, ("*.json", "*.jinja", "*.txt", "*.model"), CheckpointError)
    hint = "save the tokenizer into the model folder (tokenizer.save_pretrained)"
    with told_of(folder, "the tokenizer does not load", hint):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    return tokenizer


@contextmanager
def told_of(path: Path, what: str, hint: str) -> Iterator[None]:
    """What a library makes of a broken file, as an error that names it.

    transformers and tokenizers build what the values of a file say, and raise whatever that leads to: a dozen kinds of
    exceptions, and the panics of a Rust library, none of them documented. Too little memory says nothing of the file.

    Raises:
        CheckpointError: In the place of any other exception.
    """
    try:
        yield
    except (RewardLabError, MemoryError, torch.OutOfMemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{path}: {what}: {first_line(error)[:300]}", hint=hint) from error


def position_limit(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Longest sequence the model has positions for, None where nothing states one."""
    stated = [getattr(config.get_text_config(), "max_position_embeddings", None), tokenizer.model_max_length]
    # Tokenizers without a limit say 1e30.
    limits = [int(limit) for limit in stated if limit is not None and 0 < limit < 10**9]
    return min(limits, default=None)


def distinct_pad_id(tokenizer: PreTrainedTokenizerBase, avoid: set[int]) -> int | None:
    """An id to pad with that is none of ``avoid``: the tokenizer's pad, else unk; None where neither will do."""
    for candidate in (tokenizer.pad_token_id, tokenizer.unk_token_id):
        if candidate is not None and candidate not in avoid:
            return int(candidate)
    return None


def require_finite(folder: Path, model: nn.Module) -> None:
    """Refuse weights that are not finite.

    Raises:
        CheckpointError: Naming the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            bad = int((~torch.isfinite(parameter)).sum())
            raise CheckpointError(
                f"{folder}: {name} holds {bad} NaN or infinite values of {parameter.numel()}",
                hint="the training run diverged; use an earlier checkpoint",
            )


def require_safetensors(folder: Path) -> None:
    """Refuse a folder whose weights are not safetensors, are no whole files, or would be read from elsewhere.

    Raises:
        CheckpointError: They are pickled, or there are none; a file is damaged; an index names what is not there.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        for path in files:
            with open_safetensors(path):
                pass
        names = {path.name for path in files}
        for index in sorted(folder.glob("*.safetensors.index.json")):
            shards = read_json_object(index, CheckpointError).get("weight_map")
            if not isinstance(shards, dict) or not shards:
                raise CheckpointError(f"{index}: expected an object weight_map", hint=RESTORE)
            absent = sorted({str(name)[:60] for name in shards.values() if name not in [*names]})
            if absent:
                raise CheckpointError(
                    f"{index} names {absent[:3]}, which are no weight files of this folder",
                    hint="was the folder copied whole?",
                )
        return
    pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in folder.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"{folder}: the weights are pickled ({', '.join(pickles)}); loading a pickle can run any code",
            hint="have them converted to safetensors by someone who trusts the file",
        )
    raise CheckpointError(f"{folder}: no weights (*.safetensors)", hint="was the folder copied whole?")


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """An open safetensors file, as ``safetensors.safe_open`` gives it.

    Raises:
        CheckpointError: It is no whole safetensors file: its header and its size are compared when it is opened.
    """
    require_regular(path, CheckpointError)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file: {error}", hint=RESTORE) from error


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide transformers' loading report and bars: what is wrong with a checkpoint is raised by us, once."""
    before = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        if bars:
            transformers_logging.enable_progress_bar()


def torch_dtype(name: str | None) -> torch.dtype | str:
    """What transformers is told of a dtype; by default what the checkpoint is saved in.

    Raises:
        ConfigError: The name is none of :data:`DTYPES`.
    """
    if name is None:
        return "auto"
    if name not in DTYPES:
        raise ConfigError(f"unknown dtype {name!r}", hint=f"one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _require_complete(folder: Path, model: PreTrainedModel, report: dict[str, Any]) -> None:
    missing, mismatched = sorted(report["missing_keys"]), [str(key) for key in report["mismatched_keys"]]
    head = head_name(model)
    if any(key.startswith(head) for key in missing):
        raise CheckpointError(
            f"{folder}: there is no trained head: the checkpoint has no {head}.weight, transformers drew one at random",
            hint="this is a base model, or the head was lost when it was saved (LoRA without modules_to_save)",
        )
    require_no_gaps(folder, missing + mismatched)


def require_no_gaps(folder: Path, names: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks weights.

    Args:
        folder: The checkpoint.
        names: Weights that are missing or of another shape.

    Raises:
        CheckpointError: There are any.
    """
    if names:
        raise CheckpointError(
            f"{folder}: weights are missing or of another shape than the config says: {list(names[:5])}",
            hint="the folder was not copied whole, or config.json belongs to another model",
        )


def _require_ids_fit(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, contract: Contract | None
) -> None:
    """Refuse a tokenizer, or probes, with ids that the model has no embedding for."""
    count = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    probes = contract.probes if contract else ()
    ids = {
        "the tokenizer has": max(tokenizer.get_vocab().values(), default=0),
        f"a probe in {FILE_NAME} has": max((max(probe.input_ids) for probe in probes), default=0),
    }
    for told, largest in ids.items():
        if largest >= count:
            raise CheckpointError(
                f"{folder}: {told} the id {str(largest)[:30]}, and the model has embeddings for {count:,} ids",
                hint="the tokenizer belongs to another model, or the embeddings were not resized",
            )


def _restore_float32_head(folder: Path, model: PreTrainedModel) -> None:
    """Give the head its saved float32 values back: loading in a lower dtype has rounded them."""
    name = head_name(model)
    head = use_float32_head(model)
    values = {f"{name}.weight": head.weight, f"{name}.bias": head.bias}
    for path in sorted(folder.glob("*.safetensors")):
        with open_safetensors(path) as file:
            for key in set(file.keys()) & values.keys():
                with torch.no_grad():
                    values[key].copy_(file.get_tensor(key))


def _settle_tokenizer(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, contract: Contract | None
) -> tuple[str, ...]:
    """Agree on template and padding id; returns what had to be assumed."""
    text_config = model.config.get_text_config()
    if contract is not None:
        text_config.pad_token_id = contract.pad_token_id
        return ()
    notes = [f"no {FILE_NAME}: a model of others, scored by transformers' own rule"]
    if chat_template_of(tokenizer) is None:
        end = tokenizer.eos_token or tokenizer.sep_token
        if end is None:
            seal_chat_template(tokenizer)  # raises, saying what is missing
        tokenizer.chat_template = plain_template(begin_token(tokenizer), str(end))
        notes.append("the tokenizer has no chat template: the plain one is used, which the model may never have seen")
    elif asks_clock(chat_template_of(tokenizer) or ""):
        notes.append("its chat template writes today's date: the same text scores differently on another day")
    ends = {i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None}
    if text_config.pad_token_id is None:
        # transformers then reads the last id of an unpadded row; any id that never ends a row pads without moving that.
        pad_id = distinct_pad_id(tokenizer, ends)
        text_config.pad_token_id = (
            pad_id if pad_id is not None else next(i for i in range(len(ends) + 1) if i not in ends)
        )
        notes.append(f"the config has no pad_token_id: batches are padded with id {text_config.pad_token_id}")
    elif text_config.pad_token_id in ends:
        notes.append(
            f"pad_token_id {text_config.pad_token_id} is the end token: transformers reads the score one token before "
            "the end, and so does rewardlab for this model"
        )
    return tuple(notes)


def fingerprint_of(folder: Path, *, contract: bool = True) -> str:
    """A checkpoint's fingerprint: of the text files in full, and of each weight file's size, first and last mebibyte.

    Enough to tell any two checkpoints of one training run apart without reading gigabytes. Without the contract it is
    equal for a checkpoint and the same one calibrated again.
    """
    digest = hashlib.sha256()
    edge = 1 << 20
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.jinja"), *folder.glob("*.safetensors")]):
        if path.name == FILE_NAME and not contract:
            continue
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(edge if path.suffix == ".safetensors" else -1))
            if path.suffix == ".safetensors" and size > edge:
                file.seek(max(edge, size - edge))
                digest.update(file.read())
    return digest.hexdigest()
