"""One question to a judge, from a prompt and what is judged, and how its answer is read.

Texts are neutralised and fenced, then put into the prompt's messages in a single pass, so that a placeholder inside a
text is text. An answer that the model would not give, that the server held back or that broke off before its verdict is
told apart from one whose verdict cannot be read; each is an abstention.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rewardlab.errors import ConfigError
from rewardlab.judge.chat import Capabilities, ChatReply, ChatRequest
from rewardlab.judge.neutralising import fenced, neutralise, shown
from rewardlab.judge.parsing import Parsed, parse
from rewardlab.judge.prompts import PLACEHOLDER, JudgePrompt
from rewardlab.judge.token_probabilities import choice_probabilities, expected_rating, p_first
from rewardlab.judge.verdict_formats import LETTERS, VerdictSpec, instruction, schema
from rewardlab.judge.verdicts import Abstention, Choice, PairReading, RatingReading, Reading
from rewardlab.types import Text

MOST_COMPLETIONS = len(LETTERS)
"""Most completions of one listwise question."""

MAX_TOKENS = 1024
"""Longest answer, unless the caller says otherwise."""

MAX_TOKENS_STEPS = 2048
"""The same where every step of a solution is looked at."""

MOST_REFUSAL = 400
"""A refusal is short; a longer answer without a verdict is malformed."""

_REFUSAL = re.compile(
    r"\b(?:i['’]?m sorry|i am sorry|i apologi[sz]e|i (?:can|could|will|must|do)\s?(?:not|n['’]t)|i (?:can|won|don)['’]t"  # noqa: RUF001
    r"|i(?: a|['’])m (?:unable|not able)|as an ai\b|i (?:must |have to )?(?:decline|refuse))",  # noqa: RUF001
    re.IGNORECASE,
)

_LABELS: dict[str, dict[str, Choice]] = {
    "json": {"a": "first", "b": "second", "tie": "tie"},
    "tagged": {"a": "first", "b": "second", "tie": "tie"},
    "double_bracket": {"a": "first", "b": "second", "c": "tie"},
    "result": {"a": "first", "b": "second"},
    "llmbar": {"a": "first", "b": "second"},
}
"""Format to what its verdicts are called; ``two_scores`` has no one place that says which is preferred."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question that is ready to be asked.

    Attributes:
        request: What is sent.
        spec: What verdict is due.
    """

    request: ChatRequest
    spec: VerdictSpec

    def read(self, reply: ChatReply) -> Reading | Abstention:
        """The verdict of an answer, in the order in which the completions were shown.

        Args:
            reply: What came.

        Returns:
            The verdict; its probability or expected rating where the answer's log-probabilities tell. An abstention:
            ``filtered`` by the server, ``refused`` by the model, ``truncated`` before the verdict was whole, or
            ``malformed``.
        """
        if reply.finish == "content_filter":
            return Abstention("filtered", "the server held the answer back")
        if reply.refusal.strip():
            return Abstention("refused", f"the model would not: {_short(reply.refusal)!r}")
        parsed = parse(reply.text, self.spec)
        # What stands at the end of a cut answer may be the start of something else: "8" of "8.5", "2." of a list.
        if reply.finish != "stop" and (self.spec.format != "json" or isinstance(parsed, Abstention)):
            return Abstention("truncated", "the answer broke off, and is no whole JSON object")
        if isinstance(parsed, Abstention):
            if len(reply.text) <= MOST_REFUSAL and _REFUSAL.search(reply.text):
                return Abstention("refused", f"the model would not: {_short(reply.text)!r}")
            return parsed
        return self._with_probability(parsed, reply)

    def _with_probability(self, parsed: Parsed, reply: ChatReply) -> Reading:
        reading = parsed.reading
        if parsed.start is None or not reply.logprobs:
            return reading
        if isinstance(reading, RatingReading):
            place = reply.logprobs, reply.text, parsed.start
            return replace(reading, expected=expected_rating(*place, self.spec.scale, int(reading.rating)))
        if isinstance(reading, PairReading) and self.spec.format in _LABELS:
            labels = {word: c for word, c in _LABELS[self.spec.format].items() if c != "tie" or self.spec.ties}
            found = choice_probabilities(reply.logprobs, reply.text, parsed.start, labels, reading.choice)
            return reading if found is None else replace(reading, p_first=p_first(found))
        return reading


def ask(
    judge_prompt: JudgePrompt,
    prompt: Text,
    completions: Sequence[Text],
    *,
    nonce: str,
    capabilities: Capabilities,
    steps: Sequence[str] = (),
    reference: str | None = None,
    max_tokens: int | None = None,
    seed: int | None = 0,
) -> Question:
    """The question of a prompt about what is judged. No text is ever cut: half of a completion is another completion.

    Args:
        judge_prompt: What is asked.
        prompt: What the completions answer.
        completions: What is judged, in the order shown: two, several or one, as the prompt's mode says; none for steps.
        nonce: A word that nobody can have guessed, see :func:`~rewardlab.judge.nonces.nonce_of`.
        capabilities: What the endpoint can do.
        steps: The steps of a solution, for the mode ``steps``.
        reference: A right answer, for prompts that show one.
        max_tokens: Longest answer; None: 1024, of steps 2048.
        seed: For servers that draw by one.

    Raises:
        ConfigError: the number of completions or steps is not the mode's, or there is a reference and the prompt does
            not show it.
        ValueError: the nonce is none: short, or not of letters and digits.
    """
    if not re.fullmatch(r"[0-9A-Za-z]{8,64}", nonce):
        raise ValueError(f"a nonce must be 8 to 64 letters and digits, got {nonce!r}")
    mode = judge_prompt.mode
    _check_counts(mode, len(completions), len(steps))
    if reference is not None and not judge_prompt.takes_reference:
        raise ConfigError(
            f"the prompt {judge_prompt.name!r} does not show a reference answer, and there is one",
            hint="use a prompt with {reference}, or leave the reference away",
        )
    spec = VerdictSpec(
        mode=mode,
        format=judge_prompt.format_for(capabilities.schema),
        nonce=nonce,
        count=len(steps) if mode == "steps" else len(completions),
        scale=judge_prompt.scale,
        ties=judge_prompt.ties,
    )
    values = _values(judge_prompt, prompt, completions, steps, reference, spec)
    values |= {"rubric": judge_prompt.rubric.strip(), "verdict_instruction": instruction(spec)}
    messages = [{"role": "user", "content": _filled(judge_prompt.user, values)}]
    if judge_prompt.system.strip():
        messages.insert(0, {"role": "system", "content": _filled(judge_prompt.system, values)})
    # A place in a list, or a step, has no one token that says it.
    probable = mode == "rating" or (mode == "pairwise" and spec.format in _LABELS)
    request = ChatRequest(
        messages=tuple(messages),
        max_tokens=max_tokens or (MAX_TOKENS_STEPS if mode == "steps" else MAX_TOKENS),
        seed=seed,
        schema=schema(spec) if spec.format == "json" and capabilities.schema else None,
        top_logprobs=capabilities.top_logprobs if probable else 0,
    )
    return Question(request, spec)


def _check_counts(mode: str, completions: int, steps: int) -> None:
    expected = {"pairwise": (2, 2), "listwise": (2, MOST_COMPLETIONS), "rating": (1, 1), "steps": (0, 1)}[mode]
    if not expected[0] <= completions <= expected[1]:
        wanted = str(expected[0]) if expected[0] == expected[1] else f"{expected[0]} to {expected[1]}"
        raise ConfigError(f"a question of the mode {mode!r} is about {wanted} completions, got {completions}")
    if (mode == "steps") != bool(steps):
        raise ConfigError(
            f"a question of the mode {mode!r} is about {'steps' if steps == 0 else 'no steps'}, got {steps}"
        )


def _values(
    judge_prompt: JudgePrompt,
    prompt: Text,
    completions: Sequence[Text],
    steps: Sequence[str],
    reference: str | None,
    spec: VerdictSpec,
) -> dict[str, str]:
    """Placeholder to the neutralised text that fills it."""
    nonce, form = spec.nonce, spec.format

    def quoted(text: str, title: str) -> str:
        return fenced(text, title, nonce) if judge_prompt.fences else text

    values = {"prompt": quoted(shown(prompt, nonce, form, role="user"), "prompt")}
    values["reference"] = "" if reference is None else quoted(neutralise(reference, nonce, form), "reference answer")
    if judge_prompt.mode == "steps":
        values["steps"] = _numbered(
            [(f"step {i}", neutralise(s, nonce, form)) for i, s in enumerate(steps, 1)], judge_prompt, nonce
        )
        return values
    texts = [shown(completion, nonce, form, role="assistant") for completion in completions]
    titled = [(f"completion {letter}", text) for letter, text in zip(LETTERS, texts, strict=False)]
    if judge_prompt.mode == "pairwise":
        values |= {"completion_a": quoted(texts[0], "completion A"), "completion_b": quoted(texts[1], "completion B")}
    elif judge_prompt.mode == "listwise":
        values["completions"] = _numbered(titled, judge_prompt, nonce)
    else:
        values["completion"] = quoted(texts[0], "completion")
    return values


def _numbered(titled: Sequence[tuple[str, str]], judge_prompt: JudgePrompt, nonce: str) -> str:
    """Several texts, each under its title."""
    if judge_prompt.fences:
        return "\n\n".join(fenced(text, title, nonce) for title, text in titled)
    return "\n\n".join(f"[{title}]\n{text}" for title, text in titled)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The message; where there is no reference, the line that would hold it goes too, and the blank one after it."""
    if not values["reference"]:
        template = re.sub(r"^[ \t]*\{reference\}[ \t]*(?:\n|\Z)(?:[ \t]*\n)?", "", template, flags=re.MULTILINE)
    return PLACEHOLDER.sub(lambda match: values[match[1]], template).strip()


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 60 else f"{words[:60]}..."
