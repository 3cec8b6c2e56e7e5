"""The bodies of vLLM's pooling routes, and what tells one kind of body from another.

Unknown fields are ignored, as vLLM ignores them, and named in the log; known ones that would change the score, and that
nothing here does, are refused. What is done with a body is :mod:`.vllm`'s.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from rewardlab.serving.failures import RequestRefused
from rewardlab.serving.protocols.dialect import ModelName, OpenModel

_HARMLESS: dict[str, tuple[Any, ...]] = {
    "normalize": (),
    "chat_template": (),
    "chat_template_kwargs": (),
    "add_generation_prompt": (),
    "continue_final_message": (),
    "instruction": (),
    "dimensions": (),
    "mm_processor_kwargs": (),
    "media_io_kwargs": (),
    "max_tokens_per_query": (),
    "max_tokens_per_doc": (),
    "rank_fields": (["text"],),
    "padding": ("do_not_pad",),
    "truncation_side": ("left",),
}
"""Fields that would change the score, with the values, beside empty ones, that would not."""


class Options(OpenModel):
    """Fields that every request may have."""

    without_effect: ClassVar[frozenset[str]] = frozenset(
        {*_HARMLESS, "add_special_tokens", "cache_salt", "priority", "user"}
    )

    model: ModelName = None
    truncate_prompt_tokens: int | None = Field(
        None, ge=-1, description="Tokens to which text may be cut, from the left; -1: as many as the model takes."
    )
    use_activation: bool | None = Field(None, description="false: no sigmoid.")
    request_id: str | None = Field(None, max_length=256, description="Comes back within the answer's id.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_would_change_the_score(cls, data: Any) -> Any:
        refuse_unless_harmless(data, _HARMLESS)
        return data


def refuse_unless_harmless(data: Any, fields: dict[str, tuple[Any, ...]]) -> None:
    """Refuse a body with a field that would change the score and that nothing here does.

    Args:
        data: The body.
        fields: Such fields, with the values, beside empty ones, that are harmless.

    Raises:
        RequestRefused: There is such a field.
    """
    for name in fields if isinstance(data, dict) else ():
        if (value := data.get(name)) and value not in fields[name]:
            raise RequestRefused(
                f"{name} would change the score, and is not taken here", hint="leave it out", param=name
            )


TokenId: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]


def _form(value: object) -> str | None:
    if not isinstance(value, list):
        return "text" if isinstance(value, str) else None
    first = value[0] if value else ""
    return "ids" if isinstance(first, int) else "lists of ids" if isinstance(first, list) else "texts"


Sequences: TypeAlias = Annotated[
    Annotated[list[TokenId], Tag("ids")] | Annotated[list[list[TokenId]], Tag("lists of ids")],
    Discriminator(_form, custom_error_type="which_input", custom_error_message="token ids, or a list of such lists"),
]
"""Token ids, or several sequences of them."""

Input: TypeAlias = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[str], Tag("texts")]
    | Annotated[list[TokenId], Tag("ids")]
    | Annotated[list[list[TokenId]], Tag("lists of ids")],
    Discriminator(
        _form, custom_error_type="which_input", custom_error_message="rendered text, token ids, or a list of either"
    ),
]
"""Rendered text, token ids, or several; told by the first, so that an error is about the form that was meant."""


class TextPart(BaseModel):
    """A part of a message; only text has a score."""

    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: str


class Turn(BaseModel):
    """A turn; further keys travel to the model's chat template."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: str | list[TextPart] | None = None


class TextRequest(Options):
    """Rendered text, token ids, or several."""

    input: Input = Field(description="Rendered text or token ids, one or several.")


class ChatRequest(Options):
    """One conversation, rendered by the model's own chat template."""

    messages: list[Turn] = Field(min_length=1, description="The whole conversation; its last turn is what is scored.")


def told_by(*keys: str, expected: str) -> Discriminator:
    """Which kind of request a body is: the kind is tagged ``"with KEY"``, by the one of these keys that it has.

    A tag must not be a key itself, or the path of an error would read as if the field lay within that key's.

    Args:
        keys: Each tells a kind. A body with none, or with several, is refused.
        expected: What should have come, for the error.

    Raises:
        RequestRefused: When a body is read: it has several of the keys.
    """

    def kind(body: Any) -> str | None:
        found = [key for key in keys if isinstance(body, dict) and body.get(key) is not None]
        if len(found) > 1:
            raise RequestRefused(
                f"the body has {' and '.join(found)}", hint="give one of them, and not the others", param=found[1]
            )
        return f"with {found[0]}" if found else None

    return Discriminator(kind, custom_error_type="which_request", custom_error_message=expected)


class TokenUsage(BaseModel):
    """Tokens of the items."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class _Head(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: TokenUsage


class ClassData(BaseModel):
    """The score of one item."""

    index: int
    label: str
    probs: list[float] = Field(description="The score alone.")
    num_classes: int


class ClassifyAnswer(_Head):
    """Of ``/classify``."""

    data: list[ClassData]


class PoolingOptions(Options):
    """Fields that both kinds of ``/pooling`` may have."""

    task: Literal["classify", "token_classify"] | None = Field(
        None, description="By default token_classify, the steps, of a process model; classify of others."
    )
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] = Field(
        "float", description="All but float are of float32; bytes, for 50 items at most, describes them in a header."
    )
    embed_dtype: Literal["float32"] = Field("float32", description="Of base64 and bytes.")
    endianness: Literal["native", "little"] = Field("native", description="Of base64 and bytes: little either way.")


class PoolingTextRequest(PoolingOptions, TextRequest):
    """Rendered text, token ids, or several."""


class PoolingChatRequest(PoolingOptions, ChatRequest):
    """One conversation, rendered by the model's own chat template."""


PoolingRequest: TypeAlias = Annotated[
    Annotated[PoolingTextRequest, Tag("with input")] | Annotated[PoolingChatRequest, Tag("with messages")],
    told_by("input", "messages", expected="an object with either input or messages"),
]


class PoolingData(BaseModel):
    """The numbers of one item: its score, or ``[1 - P(correct), P(correct)]`` of each step; base64 is of float32."""

    index: int
    object: Literal["pooling"]
    data: list[float] | list[list[float]] | str


class PoolingAnswer(_Head):
    """Of ``/pooling``."""

    data: list[PoolingData]


class TextDocument(BaseModel):
    """A text as Cohere and Jina may send it."""

    model_config = ConfigDict(strict=True)

    text: str


Document: TypeAlias = str | TextDocument
Documents: TypeAlias = Document | list[Document]


class QueriesDocuments(Options):
    """Prompts and completions: as many, or one prompt for all."""

    queries: Documents = Field(description="The prompt of all, or one per document.")
    documents: Documents = Field(description="The completions.")


class QueriesItems(Options):
    """Prompts and completions: as many, or one prompt for all."""

    queries: Documents = Field(description="The prompt of all, or one per item.")
    items: Documents = Field(description="The completions.")


class Texts(Options):
    """Prompts and completions: as many, or one prompt for all."""

    text_1: Documents = Field(description="The prompt of all, or one per completion.")
    text_2: Documents = Field(description="The completions.")


class Data(Options):
    """Prompts and completions: as many, or one prompt for all."""

    data_1: Documents = Field(description="The prompt of all, or one per completion.")
    data_2: Documents = Field(description="The completions.")


ScoreRequest: TypeAlias = Annotated[
    Annotated[QueriesDocuments, Tag("with documents")]
    | Annotated[QueriesItems, Tag("with items")]
    | Annotated[Texts, Tag("with text_2")]
    | Annotated[Data, Tag("with data_2")],
    told_by(
        *("documents", "items", "text_2", "data_2"),
        expected="an object with queries and documents, queries and items, text_1 and text_2, or data_1 and data_2",
    ),
]


class ScoreData(BaseModel):
    """The score of one pair."""

    index: int
    object: Literal["score"]
    score: float


class ScoreAnswer(_Head):
    """Of ``/score``."""

    data: list[ScoreData]


class RerankRequest(Options):
    """A prompt and its completions."""

    query: Document = Field(description="The prompt: one user turn.")
    documents: Documents = Field(description="Its completions.")
    top_n: int | None = Field(None, ge=0, description="How many of the best; 0 or null: all.")
    return_documents: bool | None = Field(None, description="false leaves them out, as Cohere and Jina do.")


class RerankResult(BaseModel):
    """The score of one document."""

    index: int
    document: TextDocument | None = None
    relevance_score: float


class RerankUsage(BaseModel):
    """Tokens of the items."""

    prompt_tokens: int
    total_tokens: int


class RerankAnswer(BaseModel):
    """Of ``/rerank``: the best first."""

    id: str
    model: str
    usage: RerankUsage
    results: list[RerankResult]
