"""The model card: ``README.md`` beside the weights, written from the contract's own numbers.

It says what the model is, how its score is had, what it is worth on held-out rows and what it is not for. It holds no
text of the data and no path of the machine. This file knows a contract; it loads no model.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rewardlab.files import write_safely
from rewardlab.metrics.probability_columns import WORDS
from rewardlab.modeling.contract import Contract
from rewardlab.modeling.model_card_figures import (
    bounds_text,
    headlines,
    heads_table,
    lineage_section,
    metrics_section,
)

FILE_NAME = "README.md"
MARKER = "<!-- Written by rewardlab from reward_contract.json, anew at each change. To keep your text, delete this. -->"
"""A README.md without this line is somebody's own and left alone."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_OF_TRAINING = ("mode", "steps", "epochs", "learning_rate", "groups_per_step", "precision", "seed")

_KINDS = {
    "sequence": "A reward model: one score for a whole answer",
    "token": "An outcome reward model: a logit of P(correct) at each token of an answer, and one score for it",
    "step": "A process reward model: P(correct) of each step of a solution, and one score for it",
}

_WITH_REWARDLAB = """\
```python
from rewardlab import Scorer

scorer = Scorer.from_pretrained({name})
scorer.score(["What is 2 + 2?"], ["4"])
```"""

_WITH_TRANSFORMERS = """\
```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained({name}).eval()
tokenizer = AutoTokenizer.from_pretrained({name})
messages = [
    {{"role": "user", "content": "What is 2 + 2?"}},
    {{"role": "assistant", "content": "4"}},
]
inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
with torch.no_grad():
    score = model(**inputs).logits[0, 0].item()
```"""

_STEPS_WITH_TRANSFORMERS = """\
```python
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

model = AutoModelForTokenClassification.from_pretrained({name}).eval()
tokenizer = AutoTokenizer.from_pretrained({name})
separator = {separator}
steps = ["2 + 2 is 2 more than 2.", "So it is 4."]
messages = [
    {{"role": "user", "content": "What is 2 + 2?"}},
    {{"role": "assistant", "content": "".join(step + separator for step in steps)}},
]
inputs = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="pt")
with torch.no_grad():
    classes = model(**inputs).logits[0].softmax(-1)
ends = inputs["input_ids"][0] == tokenizer.convert_tokens_to_ids(separator)
step_scores = classes[ends]{which}.tolist()
```"""


def write_model_card(folder: Path, contract: Contract) -> bool:
    """Write the card into a checkpoint's folder.

    Args:
        folder: The folder; its own name is the model's.
        contract: The checkpoint's contract.

    Returns:
        Whether it was written: not where there is a README.md that is not this function's (:data:`MARKER`).
    """
    path = folder / FILE_NAME
    if path.exists() and MARKER not in path.read_text(encoding="utf-8", errors="replace"):
        return False
    write_safely(path, model_card(contract, folder.resolve().name))
    return True


def model_card(contract: Contract, name: str) -> str:
    """The card's text: the hub's metadata, then Markdown.

    Args:
        contract: The model's contract; what it does not know is left out, or said to be unknown.
        name: What the model is called.
    """
    sections = [
        f"# {name}",
        _what(contract),
        "## How to use it",
        _use(contract, name),
        "## Held-out metrics",
        metrics_section(contract),
        "## Scale",
        _scale(contract),
        "## Intended use and limits",
        _limits(contract),
        "## How it was made",
        _made(contract),
        *lineage_section(contract),
    ]
    return f"---\n{_metadata(contract, name)}\n---\n\n{MARKER}\n\n" + "\n\n".join(sections) + "\n"


def _metadata(contract: Contract, name: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    sequence = contract.head.kind == "sequence"
    task = "text-classification" if sequence else "token-classification"
    held_out = (contract.data.get("held_out") or {}).get("sha256")
    results = [
        EvalResult(
            task_type=task,
            dataset_type="held-out",
            dataset_name="held-out rows",
            dataset_args={"sha256": held_out} if held_out else None,
            metric_type=metric,
            metric_value=value,
            metric_name=told,
        )
        for metric, told, value in headlines(contract)
    ]
    origin = _origin(contract)
    return ModelCardData(
        base_model=origin if origin and _is_hub_id(origin) else None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["reward-model", "rewardlab"],
        model_name=name if results else None,
        eval_results=results or None,
    ).to_yaml()


def _what(contract: Contract) -> str:
    objective = contract.objective
    template = "the tokenizer's own" if contract.template_origin == "tokenizer" else "a plain one"
    lines = [f"{_KINDS[contract.head.kind]}. Higher is better.", ""]
    if objective.get("name") == "imported":
        lines.append(f"- **Imported** from {objective.get('from', 'another framework')}; the scores are proven equal")
    else:
        settings = [f"{key} = {_plain(value)}" for key, value in objective.items() if key != "name"]
        lines.append(f"- **Objective**: `{objective.get('name')}`{f' ({_listed(settings)})' if settings else ''}")
    if origin := _origin(contract):
        lines.append(f"- **Made from**: {_code(_shown_name(origin))}")
    if contract.heads:
        lines.append(f"- **Heads**: {len(contract.heads)} on one trunk; the checkpoint's own head is their mean")
    if "of_heads" in contract.training:
        number, count = contract.training["head"], contract.training["of_heads"]
        source = contract.training.get("exported_from")
        lines.append(f"- **One head**: head {number} (from 0) of the {count} of another checkpoint, `{source}`")
    lines += [
        f"- **Class**: `{contract.architecture}`",
        f"- **Read at**: {_code(contract.read_out)}",
    ]
    if contract.head.separator is not None:
        lines.append(f"- **Step separator**: {_code(contract.head.separator)}, after every step")
    lines += [
        f"- **Longest sequence**: {contract.max_length:,} tokens. What is longer is cut: {contract.truncation}",
        f"- **Chat template**: {template}, SHA-256 `{contract.template_sha256}`",
        f"- **First token**: {_code(contract.begin_token) if contract.begin_token else 'none in particular'}; "
        f"**last token**: {_code(contract.end_token) if contract.end_token else 'none in particular'}",
        *(f"- **Changed in the template**: {_code(change)}" for change in contract.template_changes),
    ]
    return "\n".join(lines)


def _use(contract: Contract, name: str) -> str:
    head, quoted, in_shell = contract.head, json.dumps(name, ensure_ascii=False), shlex.quote(name)
    parts = [
        "With rewardlab, which checks the contract when it loads the model:",
        _WITH_REWARDLAB.format(name=quoted),
    ]
    if contract.heads:
        parts += [
            f"It was trained with {len(contract.heads)} heads, each from its own start and its own bootstrap of the "
            "data; the score above is their mean. With rewardlab there are other ways to combine them "
            "(`min` is the most cautious), and how far they disagree on each answer:",
            f"```\nrewardlab score {in_shell} --ensemble min --data FILE --output OUT\n"
            f"rewardlab import {in_shell} --head 0 --output ONE-HEAD\n```",
        ]
    if head.kind == "sequence":
        parts += [
            "With plain transformers, the same number:",
            _WITH_TRANSFORMERS.format(name=quoted),
            f"vLLM serves it as a classifier: `vllm serve {in_shell}`, then `POST /classify` with `messages`; "
            "`problem_type` is `regression`, so that the answer is the raw score and no probability.",
        ]
        if contract.temperature is not None and contract.reference is not None:
            parts.append(
                "`vllm_pooler.json` holds the pooler settings for the calibrated score: "
                f'`vllm serve {in_shell} --pooler-config "$(cat {in_shell}/vllm_pooler.json)"`.'
            )
    elif head.kind == "step":
        which = "[:, 1:].sum(-1)" if head.neutral_is_correct else "[:, -1]"
        code = _STEPS_WITH_TRANSFORMERS.format(name=quoted, separator=json.dumps(head.separator), which=which)
        parts += [
            "With plain transformers, P(correct) of each step:",
            code,
            f"The score is the logit of their {head.aggregation}.",
        ]
    else:
        parts.append(
            f"The score is the logit of the {head.aggregation} of P(correct) over the answer's tokens, the end token "
            "too. Which tokens are the answer's is found on ids; leave that to rewardlab."
        )
    return "\n\n".join(parts)


def _scale(contract: Contract) -> str:
    return "\n\n".join([*_reference(contract), *_calibration(contract), *heads_table(contract)])


def _reference(contract: Contract) -> Iterator[str]:
    reference = contract.reference
    if reference is None:
        yield "No reference statistics are known: a single score cannot be placed."
        return
    count = f"{reference.num_scores:,} scores" if reference.num_scores else "an unknown number of scores"
    quantiles = [
        f"{100 * float(level):g} %: {reference.quantiles[level]:.3f}"
        for level in ("0.05", "0.25", "0.5", "0.75", "0.95")
        if level in reference.quantiles
    ]
    source = _shown_name(reference.source)
    yield (
        f"Reference set ({source}, {count}): mean {reference.mean:.4f}, standard deviation {reference.std:.4f}"
        + (f"; quantiles {', '.join(quantiles)}" if quantiles else "")
        + (f". SHA-256 `{reference.sha256}`." if reference.sha256 else ".")
    )


def _calibration(contract: Contract) -> Iterator[str]:
    if contract.temperature is None:
        yield "No temperature is fitted: sigmoid of a score difference is no calibrated probability."
        return
    record = contract.calibration
    interval, unit = record.get("temperature") or {}, record.get("unit", "pair")
    bounds = f" ({bounds_text(interval)})" if interval.get("low") is not None else ""
    count, prompts = record.get("num_pairs"), record.get("num_prompts", 0)
    on = f", fitted on {count:,} {unit}s of {prompts:,} prompts" if count else ""
    sha256 = (record.get("data") or {}).get("sha256")
    rows_of = f" (rows with SHA-256 `{sha256}`)" if sha256 else ""
    meaning = "a is preferred to b) = sigmoid((a - b) / T)" if unit == "pair" else "correct) = sigmoid(score / T)"
    yield f"Temperature T = {contract.temperature:.4g}{bounds}{on}{rows_of}: P({meaning}. It changes no order."
    before, after = record.get("before") or {}, record.get("after") or {}
    rows = [
        f"| {told} | {before[key]:.4f} | {after[key]:.4f} |"
        for key, told in WORDS.items()
        if key in before and key in after
    ]
    if rows:
        yield "\n".join(["| | T = 1 | with T |", "|---|---|---|", *rows])
        if record.get("comparison"):
            yield "With T is cross-fitted by prompt: each row with a T fitted on others."
    if record.get("forced"):
        yield "The fit was forced: rows that the model was trained on were not left out."
    for warning in record.get("warnings") or ():
        yield f"Note: {warning}"


def _limits(contract: Contract) -> str:
    lines = []
    if contract.head.kind == "sequence":
        lines.append(
            "Only differences between the scores of answers to the same prompt mean something. A raw score is no "
            "quality: where zero lies, and how large a unit is, is an accident of training."
        )
    else:
        lines.append("Scores are logits of the probability that a solution is correct, as this model sees it.")
    lines += [
        "Meant for ranking and choosing among answers, for filtering data, and as a training signal that is watched. "
        "It is no judge of people and no detector of harm, and it does not know whether a statement is true.",
        "Like every reward model it can be fooled: by length, formatting, flattery, or text that asks for a high "
        "score. `rewardlab evaluate --bias` measures by how much, on your own data.",
        "The metrics above are of rows like those it was trained on; on other prompts, languages and answer "
        "lengths it may be worth less. Measure it on your own.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _made(contract: Contract) -> str:
    lines = [
        f"- **{key.replace('_', ' ').capitalize()}**: {_plain(contract.training[key])}"
        for key in _OF_TRAINING
        if contract.training.get(key) is not None
    ]
    for role, told in (("train", "Training data"), ("held_out", "Held-out data")):
        record = contract.data.get(role)
        if record:
            lines.append(f"- **{told}**: {record['num_groups']:,} rows, SHA-256 `{record['sha256']}`")
    versions = ", ".join(f"{name} {number}" for name, number in contract.versions.items())
    lines.append(f"- **Versions**: {versions}" if versions else "- **Versions**: unknown")
    lines.append("- **Everything else**: `reward_contract.json`, beside this file")
    return "\n".join(lines)


def _origin(contract: Contract) -> str | None:
    """What the model was made from, as it was given: a hub id or a path."""
    origin = contract.training.get("base_model") or contract.training.get("source")
    return None if origin is None else str(origin)


def _is_hub_id(origin: str) -> bool:
    """Whether it came from the hub: a relative path can look like an id, but is not in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if not _HUB_ID.fullmatch(origin) or Path(origin).exists():
        return False
    return isinstance(try_to_load_from_cache(origin, "config.json"), str)


def _shown_name(origin: str) -> str:
    """A hub id whole, of a path the last component."""
    if _is_hub_id(origin):
        return origin
    return PurePosixPath(PureWindowsPath(origin).as_posix()).name or origin


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _listed(settings: list[str]) -> str:
    return ", ".join(_code(setting) for setting in settings)


def _code(text: str) -> str:
    """As code, so that ``<|im_end|>`` is no HTML."""
    fence = "``" if "`" in text else "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"
