"""Others' reward models -> ours, with their scores proven equal.

The foreign model turns conversations into ids and scores them by its own rules; then its weights are saved as a plain
checkpoint with a contract, that is loaded again from disk, and both the ids and the scores must be equal. Only then
does the folder get its name. The foreign chat template keeps deciding the text: it is changed only where the score
would otherwise be read elsewhere, and every change is recorded in the contract.

What each framework's files mean is :mod:`rewardlab.modeling.foreign`'s.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewardlab.data.encoding import Encoder
from rewardlab.data.template import (
    SealedTemplate,
    begin_token,
    chat_template_of,
    plain_template,
    quoted,
    render,
    seal_chat_template,
    tokenize,
)
from rewardlab.errors import ConfigError, ContractError
from rewardlab.files import replace_safely
from rewardlab.modeling.checkpoint import Provenance, save_reward_model
from rewardlab.modeling.engine import score_sequences
from rewardlab.modeling.foreign import ForeignModel, read_foreign
from rewardlab.modeling.head import is_decoder
from rewardlab.modeling.loading import load_reward_model, position_limit, require_device, require_finite, resolve_folder
from rewardlab.modeling.preparing import settle_padding
from rewardlab.modeling.probes import probe_groups
from rewardlab.modeling.verification import FLOAT32_TOLERANCE, float32_tolerance
from rewardlab.types import PromptGroup, conversation

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_FALLBACK_MAX_LENGTH = 4096
_LENGTHS = (1, 2, 7, 33, 100)  # of the drawn id sequences


@dataclass(frozen=True, slots=True)
class Imported:
    """What was imported, and the proof.

    Attributes:
        path: The new checkpoint.
        source: Where it came from.
        framework: Whose model it was.
        num_conversations: How many conversations gave the same ids and the same score.
        num_sequences: How many drawn id sequences gave the same score.
        max_difference: Largest absolute difference between a score by their rule and the checkpoint's.
        tolerance: Largest difference allowed for that score.
        score_offset: Their score minus ours: a constant, the bias of their head.
        changes: What was changed in the tokenizer and its template, in words.
        notes: What else one should know.
    """

    path: str
    source: str
    framework: str
    num_conversations: int
    num_sequences: int
    max_difference: float
    tolerance: float
    score_offset: float
    changes: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As ``rewardlab import --json`` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Proof:
    """The ids of one conversation (or drawn) up to the one that the foreign model reads, and its score."""

    group: PromptGroup | None
    ids: list[int]
    score: float


def import_reward_model(
    source: str | Path, output: str | Path, *, base: str | Path | None = None, device: str | None = None
) -> Imported:
    """Turn another framework's reward model into a plain checkpoint with a contract.

    Args:
        source: Its folder or hub id.
        output: Where the checkpoint goes; must not exist, or be empty.
        base: The base model of an adapter; by default the one that the adapter names.
        device: Where to score; by default the first CUDA device, else the CPU.

    Returns:
        What was imported, with the proof.

    Raises:
        CheckpointError: It cannot be imported; the message says why.
        ConfigError: The output folder is in use, or ``base`` does not fit.
        ContractError: The checkpoint does not give the scores of the foreign model; nothing is left behind.
    """
    where, output = require_device(device), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"{output} exists and is not an empty folder", hint="name a new folder with --output")
    folder = resolve_folder(source)
    foreign = read_foreign(folder, base=base, device=where)
    tokenizer = foreign.tokenizer
    max_length = position_limit(foreign.config, tokenizer) or _FALLBACK_MAX_LENGTH
    origin, notes = _give_template(tokenizer)

    proofs = _foreign_scores(foreign, max_length)
    conversations = [proof.ids for proof in proofs if proof.group is not None]
    changes = _keep_to_what_is_read(foreign, proofs)
    model = foreign.converted()  # on its device already
    require_finite(folder, model)
    changes += _use_distinct_pad(model, tokenizer, {ids[-1] for ids in conversations})
    model.config.problem_type = "regression"  # else vLLM and the transformers pipeline return a sigmoid of the score
    model.config.use_cache = False
    template = _sealed_as(tokenizer, origin, conversations, changes)
    if foreign.offset:
        notes.append(
            f"their head has a bias, which a *ForSequenceClassification decoder cannot hold: their score is ours "
            f"{foreign.offset:+.6g}; differences between scores are the same"
        )
    if foreign.reference is not None:
        notes.append(
            f"the config's mean {foreign.reference.mean:g} and std {foreign.reference.std:g} are kept as the reference "
            "statistics; scores are those before normalisation"
        )

    training = {"source": str(source), "framework": foreign.framework, **foreign.details}
    provenance = Provenance({"name": "imported", "from": foreign.framework}, training=training)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-importing-") as scratch:
        made = Path(scratch) / output.name
        save_reward_model(
            made,
            model,
            tokenizer,
            template,
            max_length=max_length,
            provenance=provenance,
            reference=foreign.reference,
        )
        del model
        largest, tolerance = _require_equal(made, proofs, foreign.offset, str(where))
        replace_safely(made, output)
    return Imported(
        path=str(output),
        source=str(source),
        framework=foreign.framework,
        num_conversations=len(conversations),
        num_sequences=len(proofs) - len(conversations),
        max_difference=largest,
        tolerance=tolerance,
        score_offset=foreign.offset,
        changes=tuple(changes),
        notes=tuple(notes),
    )


def _give_template(tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[str]]:
    """Where the template comes from; a tokenizer without one gets what :func:`load_reward_model` would assume."""
    if chat_template_of(tokenizer) is not None:
        return "tokenizer", []
    end = tokenizer.eos_token or tokenizer.sep_token
    if end is None:
        seal_chat_template(tokenizer)  # raises, saying what is missing
    tokenizer.chat_template = plain_template(begin_token(tokenizer), str(end))
    return "plain", ["the tokenizer has no chat template: the plain one is used, which the model may never have seen"]


def _foreign_scores(foreign: ForeignModel, max_length: int) -> list[_Proof]:
    """The built-in conversations and a few drawn sequences, as the foreign model reads and scores them.

    The ids kept are those up to the one that is read: what stands behind it changes no score.
    """
    tokenizer = foreign.tokenizer
    proofs = []
    for group in probe_groups(Encoder(tokenizer, max_length)):
        text = render(tokenizer, conversation(group.prompt, group.completions[0]))
        if foreign.appends_eos:
            text = text.rstrip("\n")
            if not text.endswith(str(tokenizer.eos_token)):
                text += f" {tokenizer.eos_token}"
        ids = tokenize(tokenizer, text)
        if len(ids) <= max_length:
            proofs.append(_Proof(group, _read(ids, foreign.skipped_id), foreign.score(ids)))
    draw, special = random.Random(0), set(tokenizer.all_special_ids) | {foreign.skipped_id}
    num_ids = min(len(tokenizer), foreign.config.get_text_config().vocab_size)
    vocabulary = [i for i in range(num_ids) if i not in special]
    tail = [] if foreign.skipped_id is None else [foreign.skipped_id]
    for length in _LENGTHS:
        if length < max_length:
            ids = draw.choices(vocabulary, k=length)
            proofs.append(_Proof(None, ids, foreign.score(ids + tail)))
    return proofs


def _read(ids: list[int], skipped_id: int | None) -> list[int]:
    end = len(ids)
    while end > 1 and ids[end - 1] == skipped_id:
        end -= 1
    return ids[:end]


def _keep_to_what_is_read(foreign: ForeignModel, proofs: Sequence[_Proof]) -> list[str]:
    """Change the template so that what it renders ends where the foreign model reads; returns what was changed."""
    tokenizer = foreign.tokenizer
    if all(_ids_of(tokenizer, proof.group) == proof.ids for proof in proofs if proof.group is not None):
        return []
    if foreign.appends_eos:
        end = quoted(str(tokenizer.eos_token))
        ending = (
            "{% set rewardlab_text = rewardlab_text.rstrip('\\n') %}{{ rewardlab_text }}"
            "{% if not rewardlab_text.endswith(" + end + ") %}{{ ' ' + " + end + " }}{% endif %}"
        )
        change = f"new lines at the end removed and {tokenizer.eos_token} put there where it is missing, as in training"
    else:
        assert foreign.skipped_id is not None  # nothing else takes ids away
        skipped = str(tokenizer.convert_ids_to_tokens(foreign.skipped_id))
        end = quoted(skipped)
        ending = (
            "{% set rewardlab_end = namespace(text=rewardlab_text) %}"
            "{% for _ in range(rewardlab_text.count(" + end + ")) %}"
            "{% set rewardlab_end.text = rewardlab_end.text.removesuffix(" + end + ") %}{% endfor %}"
            "{{ rewardlab_end.text }}"
        )
        change = f"{skipped} at the end removed: it was the padding token too, and the score was read before it"
    body = str(chat_template_of(tokenizer)).removesuffix("\n")  # Jinja drops it at a template's end, not in here
    tokenizer.chat_template = (
        # trim_blocks eats the new line after the opening tag, so that the original starts at a line's start, as it did.
        "{% set rewardlab_text %}\n" + body + "{% endset %}"
        "{% if add_generation_prompt %}{{ rewardlab_text }}{% else %}" + ending + "{% endif %}"
    )
    return [change]


def _ids_of(tokenizer: PreTrainedTokenizerBase, group: PromptGroup) -> list[int]:
    return tokenize(tokenizer, render(tokenizer, conversation(group.prompt, group.completions[0])))


def _use_distinct_pad(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, last_ids: set[int]) -> list[str]:
    """Pad with an id that no text ends with, so that transformers' rule reads the last id; returns what was changed."""
    ends = {i for i in (tokenizer.eos_token_id, tokenizer.sep_token_id) if i is not None}
    old = tokenizer.pad_token
    new = tokenizer.pad_token_id is None or (is_decoder(model) and tokenizer.pad_token_id in ends | last_ids)
    settle_padding(model, tokenizer, new=new)
    return [f"<|pad|> takes the place of {old} as the padding token"] if new else []


def _sealed_as(
    tokenizer: PreTrainedTokenizerBase, origin: str, conversations: Sequence[list[int]], changes: Sequence[str]
) -> SealedTemplate:
    """How the conversations start and end, as the contract states it."""
    begin = begin_token(tokenizer)
    if begin is not None and any(ids[0] != tokenizer.convert_tokens_to_ids(begin) for ids in conversations):
        begin = None
    last = {ids[-1] for ids in conversations}
    end = str(tokenizer.convert_ids_to_tokens(last.pop())) if len(last) == 1 else ""
    return SealedTemplate(origin, begin, end, tuple(changes))


def _require_equal(folder: Path, proofs: Sequence[_Proof], offset: float, device: str) -> tuple[float, float]:
    """Ids and scores of the checkpoint on disk against those of the foreign model; the largest difference and limit."""
    loaded = load_reward_model(folder, device=device, dtype="float32")
    encoder = loaded.encoder()
    for proof in proofs:
        if proof.group is not None and list(encoder.encode(proof.group).sequences[0]) != proof.ids:
            raise ContractError(
                f"{proof.group.name}: the foreign model reads {proof.ids[-4:]} at the end, and the checkpoint's own "
                f"chat template gives {list(encoder.encode(proof.group).sequences[0])[-4:]}",
                hint="the chat template cannot be changed to end where the score is read; this model is not imported",
            )
    ours = score_sequences(loaded.model, [proof.ids for proof in proofs])
    worst = (0.0, FLOAT32_TOLERANCE)
    for score, proof in zip(ours, proofs, strict=True):
        difference, allowed = abs(score + offset - proof.score), float32_tolerance([proof.score])
        if not difference <= allowed:  # also where either is not a number
            raise ContractError(
                f"the checkpoint does not give the foreign model's scores: {score + offset:.8g} for {proof.score:.8g} "
                f"({len(proof.ids)} tokens, allowed {allowed:.2g})",
                hint="the model is not imported; please report which framework and version wrote it",
            )
        worst = max(worst, (difference, allowed))
    return worst
