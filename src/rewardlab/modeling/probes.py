"""The conversations a checkpoint proves itself on.

They are written here rather than taken from the user's data: a checkpoint is shared, and training data may hold what
must not be shared with it. They are chosen to notice what goes wrong in practice: a lost head (two answers to one
question), a moved read-out (answers of very different length), another aggregation (an answer of several steps, one of
them wrong), another template (system turn, several turns), a double
BOS, another truncation rule (one conversation longer than the limit), another tokenizer (white space, code, several
scripts).
"""

from __future__ import annotations

from rewardlab.data.encoding import Encoder
from rewardlab.errors import DataError
from rewardlab.types import PromptGroup

_QUESTION = "How do I keep bread fresh for longer?"

_PROBES: tuple[tuple[tuple[tuple[str, str], ...], str], ...] = (
    (
        (("user", _QUESTION),),
        "Keep it in a paper bag at room temperature, cut side down, and freeze what you will not eat.",
    ),
    ((("user", _QUESTION),), "No idea."),
    ((("user", "Is 97 a prime number?"),), "Yes"),
    (
        (
            ("user", "Name a river in Africa."),
            ("assistant", "The Nile."),
            ("user", "And one in Asia? Only the name."),
        ),
        "The Mekong",
    ),
    (
        (("system", "Answer in one sentence."), ("user", "Why is the sky blue?")),
        "Air scatters blue light more than red.",
    ),
    (
        (("user", "What is 12 times 13?"),),
        "12 times 10 is 120.\n12 times 3 is 35.\nWe add both.\nThe answer is 155.",
    ),
    (
        (("user", "Write a function that adds two numbers."),),
        "```python\ndef add(a, b):\n    return a + b\n```\n\nIt returns the sum:\n\n"
        "- `add(1, 2)` is `3`\n- `add(-1, 1)` is `0`",
    ),
    (
        (("user", "Translate 'good morning' into French, Greek and Japanese."),),
        "Bonjour, καλημέρα, おはようございます ☀️",
    ),
    ((("user", "  Summarise:   it rained\tall day.\n\n"),), "It rained. " * 30),
)

# Longer conversations than this are not worth the forward passes a check would spend on them.
_LONGEST_TRUNCATED = 2048


def probe_groups(encoder: Encoder) -> list[PromptGroup]:
    """The probes this model's template can render, each a group of one completion.

    Args:
        encoder: The model's encoder; a template that refuses a probe (no system role, say) leaves it out, and the
            probe that must be truncated is sized to the encoder's maximum length.
    """
    probes = list(_PROBES)
    if encoder.max_length <= _LONGEST_TRUNCATED:
        turns = [
            (role, f"{role} turn {i}: " + "the quick brown fox jumps over the lazy dog; " * 4)
            for i in range(encoder.max_length // 40 + 1)
            for role in ("user", "assistant")
        ]
        probes.append(((*turns, ("user", "Which animal jumps?")), "The fox."))
    groups = [
        PromptGroup(tuple({"role": role, "content": content} for role, content in prompt), (answer,), id=f"probe {i}")
        for i, (prompt, answer) in enumerate(probes)
    ]
    return [
        g for g, encoded in zip(groups, encoder.encode_many(groups), strict=True) if not isinstance(encoded, DataError)
    ]
