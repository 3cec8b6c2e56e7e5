"""What is asked of a model and what it answers: the records that travel between the server and its worker process.

An item is one thing to score. There are four kinds, for clients differ in how far they have prepared the text; each is
turned into ids by the worker (:mod:`rewardlab.serving.encoding`), which alone has the tokenizer. No torch, no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from rewardlab.calibration.comparison import Unit
from rewardlab.calibration.reference import ReferenceStatistics
from rewardlab.calibration.scale import ScoreScale
from rewardlab.errors import ConfigError
from rewardlab.types import Kind, Scale, Text, text_of

_TURN_CHARS = 8
"""What a turn or a step counts beside its text, for the template writes something around an empty one too."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt and a completion, rendered by the model's own chat template; read as ``Scorer.score`` reads them.

    Attributes:
        prompt: Text or messages; ``""`` where there is none.
        completion: Text or messages.
        steps: For process models: the completion's steps; empty where the model's contract says how to split it.
    """

    prompt: Text
    completion: Text
    steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A whole conversation to which a client has already applied the chat template.

    It is tokenised once with nothing added, but for what every sequence of this model has exactly once: the begin token
    in front, which some clients strip, and the end token behind, where the score is read.

    Attributes:
        text: The text.
        cut_to: Tokens to which it may be cut, begin token and the newest tokens kept; None where it may not: a text
            over the maximum length is then refused, for its turns can no longer be told.
    """

    text: str
    cut_to: int | None = None


@dataclass(frozen=True, slots=True)
class Continued:
    """A prompt that may be plain or already rendered, which its text tells, and the response that continues it.

    Attributes:
        prompt: Plain text, or what the chat template made of a conversation up to the answer; or messages.
        response: What follows, as it was generated: with or without the end token.
    """

    prompt: Text
    response: str


@dataclass(frozen=True, slots=True)
class Ids:
    """A whole sequence as the model's own token ids, used as they are.

    Attributes:
        ids: The ids.
    """

    ids: tuple[int, ...]


Item: TypeAlias = Conversation | Rendered | Continued | Ids


def num_chars(item: Item) -> int:
    """What an item counts against the server's limit: characters, or ids, and a few for each turn and each step.

    Args:
        item: The item.
    """
    if isinstance(item, Ids):
        return len(item.ids)
    if isinstance(item, Rendered):
        return len(item.text)
    steps = item.steps if isinstance(item, Conversation) else ()
    texts = (item.prompt, item.completion if isinstance(item, Conversation) else item.response)
    turns = sum(len(text) for text in texts if not isinstance(text, str))
    return sum(len(text_of(text)) for text in texts) + sum(map(len, steps)) + _TURN_CHARS * (turns + len(steps))


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What the model says of one item.

    Attributes:
        score: The raw score, finite.
        num_tokens: Tokens of its sequence.
        truncated: Whether the oldest part of its prompt was cut to fit.
        steps: Of process models P(correct) of each step; else empty.
        disagreement: Of ensembles the standard deviation (ddof 0) of the members' scores; else None.
        unlike_template: Whether it came as rendered text that does not begin as this model's template begins.
    """

    score: float
    num_tokens: int
    truncated: bool = False
    steps: tuple[float, ...] = ()
    disagreement: float | None = None
    unlike_template: bool = False


RefusalKind: TypeAlias = Literal["invalid", "step_boundary", "too_long", "not_finite", "failed"]
"""``invalid``: cannot be read as what it should be; ``step_boundary``: its steps cannot be told apart; ``too_long``:
does not fit; ``not_finite``: the model gives NaN or inf; ``failed``: scoring it raised. The first three are the
client's to mend, the others ours."""


@dataclass(frozen=True, slots=True)
class ItemRefusal:
    """Why an item has no score.

    Attributes:
        kind: The kind of reason.
        message: What came and what was expected; holds no more than a few words of the text.
        hint: How to fix it.
    """

    kind: RefusalKind
    message: str
    hint: str = ""


Result: TypeAlias = ItemScore | ItemRefusal


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the server knows of the model that its worker has loaded.

    Attributes:
        name: What it is called in answers.
        path: What was opened: a folder, a hub id, ``A,B,C``, or ``POLICY:REFERENCE``.
        fingerprint: Equal for equal checkpoints.
        contract_sha256: SHA-256 of the contract file; of ensembles, of the members' together; None without a contract.
        kind: What the head gives numbers for.
        architecture: transformers class, or what else scores (``"ensemble of 3"``).
        max_length: Longest sequence in tokens.
        dtype: Of the trunk.
        device: Where it is computed.
        layout: The layout in use.
        tokens_per_batch: Most tokens in one forward.
        activation: What vLLM would apply to the logit: ``"identity"`` where the config says
            ``problem_type="regression"``, as ours do, else ``"sigmoid"``.
        reads_rendered: Why already rendered text and ids cannot be scored; empty where they can.
        members: Names of an ensemble's members.
        how: How they are combined; empty of one model.
        members_scale: What the members' scores are put on first; empty of one model.
        rendered_example: What the model's chat template makes of a user who asks "What is the capital of France?" and
            an assistant who answers "Paris."; empty where rendered text cannot be scored.
        reference: Statistics of the reference set's scores.
        temperature: Fitted temperature.
        unit: What the temperature was fitted on.
        versions: Library versions in the worker.
    """

    name: str
    path: str
    fingerprint: str
    contract_sha256: str | None
    kind: Kind
    architecture: str
    max_length: int
    dtype: str
    device: str
    layout: str
    tokens_per_batch: int
    activation: Literal["identity", "sigmoid"] = "identity"
    reads_rendered: str = ""
    members: tuple[str, ...] = ()
    how: str = ""
    members_scale: str = ""
    rendered_example: str = ""
    reference: ReferenceStatistics | None = None
    temperature: float | None = None
    unit: Unit = "pair"
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def scale(self) -> ScoreScale:
        """What turns raw scores into any scale."""
        return ScoreScale(self.reference, self.temperature, self.unit)

    def require_scale(self, scale: Scale) -> None:
        """Refuse a scale that its scores cannot be given in.

        Raises:
            ConfigError: The model has not what the scale needs.
        """
        if scale != "raw" and self.members:
            raise ConfigError(f"an ensemble has no scale {scale!r}", hint="its score has no reference set: serve raw")
        self.scale.require(scale)

    def to_dict(self) -> dict[str, Any]:
        """For ``/info``: plain JSON values."""
        reference = (
            None
            if self.reference is None
            else {"num_scores": self.reference.num_scores, "mean": self.reference.mean, "std": self.reference.std}
        )
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "contract_sha256": self.contract_sha256,
            "kind": self.kind,
            "architecture": self.architecture,
            "max_length": self.max_length,
            "dtype": self.dtype,
            "device": self.device,
            "layout": self.layout,
            "tokens_per_batch": self.tokens_per_batch,
            "activation": self.activation,
            "reads_rendered_text": not self.reads_rendered,
            "members": list(self.members),
            "how": self.how or None,
            "members_scale": self.members_scale or None,
            "rendered_example": self.rendered_example or None,
            "reference": reference,
            "temperature": self.temperature,
            "unit": self.unit,
            "versions": dict(self.versions),
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the items of one request.

    Attributes:
        results: One per item, in order.
        model: The model that scored them.
    """

    results: tuple[Result, ...]
    model: ModelInfo
