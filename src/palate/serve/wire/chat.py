"""`/v1/chat/completions` and `/v1/completions`, as OpenAI's clients speak them."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from palate.serve.wire.palate import Explained, PalateIn, PalateOut, WireIn, WireOut

MAX_ANSWERS = 8
Finish = Literal["stop", "length"]

Stop = Annotated[str, Field(min_length=1, max_length=256)]
Text = Annotated[str, Field(max_length=1_000_000)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


class TextPart(WireIn):
    """One part of a message's content."""

    type: Literal["text"]
    text: Text


class Message(WireIn):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=256)]
    name: Annotated[str, Field(max_length=64)] | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class StreamOptions(WireIn):
    """What a stream ends with."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Sampled(WireIn):
    """What both kinds of request share.

    `frequency_penalty`, `presence_penalty` and `logit_bias` are accepted at their neutral values
    only; `user`, `metadata`, `store` and `service_tier` are accepted and not used.
    """

    model: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            description="`palate`, or `palate/METHOD` to fix the method; see /v1/models.",
            examples=["palate"],
        ),
    ]
    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=0, le=100_000)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0, allow_inf_nan=False)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    seed: Seed | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ANSWERS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Annotated[float, Field(ge=0.0, le=0.0, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=0.0, le=0.0, allow_inf_nan=False)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=64)] | None = None
    palate: PalateIn = PalateIn()

    @model_validator(mode="after")
    def _require_stream(self) -> "_Sampled":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams; set stream to true or leave them out")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ResponseFormat(WireIn):
    """Only plain text."""

    type: Literal["text"]


class ChatIn(_Sampled):
    """A chat completion."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None

    @model_validator(mode="after")
    def _require_logprobs(self) -> "ChatIn":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs need logprobs; set logprobs to true")
        return self


class CompletionIn(_Sampled):
    """A completion of a text."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The prompt as one string."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]


class PromptTokensDetails(WireOut):
    """Of the prompt's tokens, how many were known and not read again."""

    cached_tokens: int


class Usage(WireOut):
    """Tokens read and written; a prompt counts once, whatever `n`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(WireOut):
    """A token that might have been."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The token that was, and the most probable ones."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(WireOut):
    """Log-probabilities under the plan, before temperature, top-k and top-p."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(WireOut):
    """What the model says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(WireOut):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    palate: Explained | None = None


class ChatOut(WireOut):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    palate: PalateOut


class CompletionLogprobs(WireOut):
    """The older form of log-probabilities."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(WireOut):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    palate: Explained | None = None


class CompletionOut(WireOut):
    """A whole completion of a text."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str
    palate: PalateOut


class ModelOut(WireOut):
    """A name that can be given as `model`."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "palate"


class ModelsOut(WireOut):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[ModelOut]


Chunk = dict[str, Any]  # one event of a stream; keys as in OpenAI's chunks
