"""What a judge is asked: the built-in prompts and those of files, each checked before anything is asked.

A prompt is a YAML file with a user message and, most often, a system message, in which ``{prompt}`` and other
placeholders stand for what is judged; docs/judge_prompts.md lists them. This file knows prompts; how they are filled is
:mod:`~rewardlab.judge.questions`'s.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from rewardlab.config import build
from rewardlab.errors import ConfigError
from rewardlab.judge.verdict_formats import MODES, WITHOUT_TIES, VerdictFormat
from rewardlab.judge.verdicts import Mode

FormatSetting: TypeAlias = Literal["auto", VerdictFormat]
"""A format of verdicts, or ``auto``: ``json`` where the server keeps to a schema, else ``tagged``."""

PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""A word in braces; other braces, as in an example of JSON, are text."""

SHOWN: dict[Mode, tuple[str, ...]] = {
    "pairwise": ("prompt", "completion_a", "completion_b"),
    "listwise": ("prompt", "completions"),
    "rating": ("prompt", "completion"),
    "steps": ("prompt", "steps"),
}
"""Mode to the placeholders that a prompt must have: a judge that does not see them all cannot judge."""

OPTIONAL: dict[Mode, tuple[str, ...]] = {
    "pairwise": ("reference", "rubric", "verdict_instruction"),
    "listwise": ("rubric", "verdict_instruction"),
    "rating": ("reference", "rubric", "verdict_instruction"),
    "steps": ("rubric", "verdict_instruction"),
}
"""Mode to the placeholders that a prompt may have."""

PROMPTS: dict[str, dict[Mode, str]] = {
    "pairwise": {"pairwise": "pairwise.yaml"},
    "listwise": {"listwise": "listwise.yaml"},
    "rating": {"rating": "rating.yaml"},
    "steps": {"steps": "steps.yaml"},
    "mt-bench": {"pairwise": "mt_bench.yaml"},
    "rewardbench": {"pairwise": "rewardbench.yaml"},
    "rewardbench-2": {"rating": "rewardbench_2.yaml"},
    "prometheus": {"pairwise": "prometheus_pairwise.yaml", "rating": "prometheus_rating.yaml"},
}
"""Name of a built-in prompt to its file for each of its modes."""


@dataclass(frozen=True, slots=True)
class JudgePrompt:
    """What a judge is asked, as a YAML file says it.

    Attributes:
        name: What it is called in records.
        mode: What is judged.
        user: The user message.
        system: The system message; empty: none.
        verdict: The form of the verdict.
        scale: Lowest and highest rating, for ratings and for the format ``two_scores``.
        ties: Whether two completions may be called equal.
        rubric: What fills ``{rubric}``.
        fences: Whether each text that is judged stands between two lines that it cannot hold; without them the prompt's
            own words must say where a text ends.
    """

    name: str
    mode: Mode
    user: str
    system: str = ""
    verdict: FormatSetting = "auto"
    scale: tuple[int, int] = (1, 10)
    ties: bool = True
    rubric: str = ""
    fences: bool = True

    def __post_init__(self) -> None:
        """Refuse what could only be found out after it was asked and paid for."""
        given = PLACEHOLDER.findall(self.system + self.user)
        known = (*SHOWN[self.mode], *OPTIONAL[self.mode])
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name.lower(), known, 1)
                raise ValueError(
                    f"{{{name}}} is no placeholder of the mode {self.mode!r}; it has "
                    + ", ".join(f"{{{one}}}" for one in known)
                    + (f"; did you mean {{{near[0]}}}?" if near else "")
                )
        missing = [name for name in SHOWN[self.mode] if name not in given]
        if missing:
            raise ValueError(f"the messages show no {' and no '.join(f'{{{name}}}' for name in missing)}")
        if self.verdict in ("auto", "json", "tagged") and "verdict_instruction" not in given:
            raise ValueError(
                f"a verdict of the form {self.verdict!r} is asked for by {{verdict_instruction}}, and it is not there"
            )
        if ("rubric" in given) != bool(self.rubric.strip()):
            raise ValueError("{rubric} and the key rubric go together, and one of them is missing")
        if self.verdict != "auto" and self.mode not in MODES[self.verdict]:
            raise ValueError(f"a verdict of the form {self.verdict!r} cannot say what the mode {self.mode!r} asks")
        if self.verdict in WITHOUT_TIES and self.mode == "pairwise" and self.ties:
            raise ValueError(f"a verdict of the form {self.verdict!r} knows no tie: expected ties: false")
        low, high = self.scale
        if not 0 <= low < high <= 1000:
            raise ValueError(f"scale must be two integers with 0 <= lowest < highest <= 1000, got {low} and {high}")

    def format_for(self, schema: bool) -> VerdictFormat:
        """The form of the verdict at a server that does, or does not, keep to a JSON schema."""
        if self.verdict == "auto":
            return "json" if schema else "tagged"
        return self.verdict

    @property
    def takes_reference(self) -> bool:
        """Whether it shows a reference answer where there is one."""
        return "reference" in PLACEHOLDER.findall(self.system + self.user)

    @property
    def sha256(self) -> str:
        """Hexadecimal SHA-256 of all that it says: two prompts that ask the same have the same."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def load_prompt(name_or_path: str | Path, mode: Mode) -> JudgePrompt:
    """A built-in prompt by its name, or a prompt file.

    Args:
        name_or_path: One of :data:`PROMPTS`, or a YAML file.
        mode: The mode it is for.

    Raises:
        ConfigError: there is no such prompt, its file cannot be read or says what no prompt can be, or it is of another
            mode.
    """
    built_in = PROMPTS.get(str(name_or_path))
    if built_in is not None:
        if mode not in built_in:
            modes = " and ".join(built_in)
            raise ConfigError(
                f"the prompt {str(name_or_path)!r} is for the mode {modes}, not for {mode}",
                hint=f"--mode {next(iter(built_in))}, or one of the prompts for {mode}: {_names(mode)}",
            )
        return build(JudgePrompt, recipe=Path(str(files("rewardlab.judge") / "prompt_files" / built_in[mode])))
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml") and not path.exists():
        near = difflib.get_close_matches(str(name_or_path), PROMPTS, 1)
        raise ConfigError(
            f"there is no prompt {str(name_or_path)!r}",
            hint=(f"did you mean {near[0]}? " if near else "")
            + f"Built in for {mode}: {_names(mode)}; or a YAML file.",
        )
    try:
        prompt = build(JudgePrompt, recipe=path)
    except ConfigError as error:
        message = error.message if str(path) in error.message else f"{path}: {error.message}"
        raise ConfigError(
            message, hint=error.hint.replace("--set", "the key") or "see docs/judge_prompts.md"
        ) from error
    if prompt.mode != mode:
        raise ConfigError(
            f"{path}: expected a prompt of the mode {mode!r}, got {prompt.mode!r}", hint=f"--mode {prompt.mode}"
        )
    return prompt


def _names(mode: Mode) -> str:
    return ", ".join(name for name, modes in PROMPTS.items() if mode in modes)
