"""`/v1/chat/completions` and `/v1/completions`, as OpenAI's clients speak them."""

import json
from contextlib import suppress
from typing import Annotated, Any, Literal, NotRequired, cast

from pydantic import BeforeValidator, Field, model_validator, with_config
from typing_extensions import TypedDict

from palate.core.decision import Messages
from palate.serve.wire.palate import (
    STRICT,
    Explained,
    PalateIn,
    PalateOut,
    UserId,
    WireIn,
    WithoutNul,
    without_nulls,
)
from palate.serve.wire.tools import Tool, ToolCall, schema_of_call

MAX_ANSWERS = 8
MAX_BIASES = 1024
MAX_TOOLS = 128
LEAST_LOG_PROB = -9999.0  # stands for minus infinity, which JSON cannot hold
Finish = Literal["stop", "length", "tool_calls"]

Stop = Annotated[str, Field(min_length=1, max_length=256), WithoutNul]
Text = Annotated[str, Field(max_length=1_000_000), WithoutNul]
TokenId = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]


@with_config(STRICT)
class TextPart(TypedDict):
    """One part of a message's content."""

    type: Literal["text"]
    text: Text


def _as_sent_back(message: Any) -> Any:
    """An answer as OpenAI's clients give it back: with keys that hold nothing."""
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    sent = {k: v for k, v in cast("dict[str, Any]", message).items() if v is not None and v != []}
    return {"content": "", **sent} if "tool_calls" in sent else sent  # a call has no text


@with_config(STRICT)
class Message(TypedDict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=256)]
    name: NotRequired[Annotated[str, Field(max_length=64)] | None]
    tool_calls: NotRequired[Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None]
    tool_call_id: NotRequired[Annotated[str, Field(max_length=128)] | None]


SentMessage = Annotated[Message, BeforeValidator(_as_sent_back)]


def plain(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as the model's template takes them; `developer` is `system`."""
    roles = {"developer": "system"}
    conversation: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], message["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        conversation.append({"role": roles.get(role, role), "content": text})
        calls = [_plain_call(call) for call in message.get("tool_calls") or ()]
        extra = {"tool_calls": calls, "tool_call_id": message.get("tool_call_id")}
        conversation[-1] |= {key: value for key, value in extra.items() if value}
    return conversation


def _plain_call(call: ToolCall) -> dict[str, Any]:
    """A call as templates take it, with its arguments as an object."""
    function: dict[str, Any] = {**call["function"]}
    with suppress(ValueError, RecursionError):  # what is no JSON stays text
        function["arguments"] = json.loads(function["arguments"])
    return {**call, "function": function}


class StreamOptions(WireIn):
    """What a stream ends with."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class _Sampled(WireIn):
    """What both kinds of request share.

    `model` is `palate`, or `palate/METHOD` to fix the method; see /v1/models. `user` names the user
    as `palate.user` does. `logit_bias` is added to the log-probabilities of these token ids.
    `frequency_penalty` and `presence_penalty` are accepted at their neutral values only;
    `metadata`, `store` and `service_tier` are accepted and not used.
    """

    model: Annotated[str, Field(min_length=1, max_length=256, examples=["palate"])]
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
    logit_bias: Annotated[dict[TokenId, Bias], Field(max_length=MAX_BIASES)] | None = None
    user: UserId | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    store: bool | None = None
    service_tier: Annotated[str, Field(max_length=64)] | None = None
    palate: Annotated[PalateIn, BeforeValidator(without_nulls)] = PalateIn()

    _drop_nulls = model_validator(mode="before")(without_nulls)

    @model_validator(mode="after")
    def _require_stream(self) -> "_Sampled":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options are for streams; set stream to true or leave them out")
        return self

    @model_validator(mode="after")
    def _require_one_user(self) -> "_Sampled":
        if None not in (self.user, self.palate.user) and self.user != self.palate.user:
            raise ValueError("user and palate.user name different users; give one of them")
        return self

    @property
    def user_name(self) -> str | None:
        """The user who is answered, if any."""
        return self.palate.user or self.user

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


@with_config(STRICT)
class JsonSchema(TypedDict):
    """The schema of an answer, which is kept to it whether `strict` or not."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: NotRequired[Annotated[str, Field(max_length=4096)] | None]
    schema: NotRequired[dict[str, Any] | None]
    strict: NotRequired[bool | None]


class ResponseFormat(WireIn):
    """The form of an answer: text, any JSON object, or JSON by a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _require_schema(self) -> "ResponseFormat":
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with the type 'json_schema', and with no other")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The schema; `None` for text."""
        given = self.json_schema.get("schema") if self.json_schema else None
        return None if self.type == "text" else given or {"type": "object"}


class ChatIn(_Sampled):
    """A chat completion."""

    messages: Annotated[list[SentMessage], Field(min_length=1, max_length=1024)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(min_length=1, max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | Tool | None = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _require_tools(self) -> "ChatIn":
        if self.is_forced and not self.offered_tools:
            raise ValueError("tool_choice asks for a function that tools do not hold; add it")
        if self.offered_tools and self.response_format and self.response_format.type != "text":
            raise ValueError("an answer is a call of tools or has a response_format; leave one out")
        return self

    @model_validator(mode="after")
    def _require_logprobs(self) -> "ChatIn":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs need logprobs; set logprobs to true")
        return self

    @property
    def conversation(self) -> Messages:
        """The messages as the model's template takes them; the last one carries the tools."""
        messages = plain(self.messages)
        if self.offered_tools:
            messages[-1]["tools"] = self.offered_tools
        return messages

    @property
    def is_forced(self) -> bool:
        """Whether the answer must be a call."""
        return self.tool_choice not in (None, "none", "auto")

    @property
    def offered_tools(self) -> list[Tool]:
        """The tools that an answer may call."""
        tools, choice = self.tools or [], self.tool_choice
        if isinstance(choice, dict):
            name = choice["function"]["name"]
            return [tool for tool in tools if tool["function"]["name"] == name]
        return [] if choice == "none" else tools

    @property
    def n_top(self) -> int:
        """Most probable tokens to report."""
        return self.top_logprobs or 0

    @property
    def n_tokens(self) -> int | None:
        """Longest answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema that the answer is kept to, if any."""
        if self.is_forced:
            return schema_of_call(self.offered_tools)
        return self.response_format and self.response_format.schema_of_answer


class CompletionIn(_Sampled):
    """A completion of a text."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: Literal[False] | None = None
    best_of: Annotated[int, Field(ge=1, le=1)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = None

    @property
    def conversation(self) -> Messages:
        """The prompt as one text."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]

    @property
    def n_top(self) -> int:
        """Most probable tokens to report."""
        return self.logprobs or 0

    @property
    def n_tokens(self) -> int | None:
        """Longest answer."""
        return self.max_tokens

    @property
    def schema_of_answer(self) -> None:
        """Completions of texts have no form."""


class PromptTokensDetails(TypedDict):
    """Tokens of the prompt that came from the prefix cache."""

    cached_tokens: int


class Usage(TypedDict):
    """Tokens of the prompt, which counts once whatever `n`, and of all answers and candidates."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(TypedDict):
    """A token and its log-probability, nats."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The sampled token, and the most probable ones."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Log-probabilities under the plan, before temperature, top-k and top-p."""

    content: list[TokenLogprob]
    refusal: None


class AnswerMessage(TypedDict):
    """The answer as a message."""

    role: Literal["assistant"]
    content: str | None  # none of one that calls tools only
    refusal: None
    tool_calls: NotRequired[list[ToolCall]]


class ChatChoice(TypedDict):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: Finish
    palate: Explained | None


class ChatOut(TypedDict):
    """A whole chat completion."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str
    palate: PalateOut


class CompletionLogprobs(TypedDict):
    """The older form of log-probabilities."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Finish | None
    palate: Explained | None


class CompletionOut(TypedDict):
    """A whole completion of a text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    system_fingerprint: str
    palate: PalateOut


class ModelOut(TypedDict):
    """A name that can be given as `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelsOut(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[ModelOut]
