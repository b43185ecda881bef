"""Tools that a model may call, as OpenAI's clients offer them, and its calls."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, with_config
from typing_extensions import TypedDict

from palate.serve.wire.palate import STRICT, WithoutNul

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Words = Annotated[str, Field(max_length=1_000_000), WithoutNul]


@with_config(STRICT)
class Function(TypedDict):
    """A function, with the JSON schema of its arguments."""

    name: FunctionName
    description: NotRequired[Words | None]
    parameters: NotRequired[dict[str, Any] | None]
    strict: NotRequired[bool | None]


@with_config(STRICT)
class Tool(TypedDict):
    """A tool; where one must be called, its name alone says which."""

    type: Literal["function"]
    function: Function


@with_config(STRICT)
class CalledFunction(TypedDict):
    """What is called, with its arguments as JSON text."""

    name: FunctionName
    arguments: Words


@with_config(STRICT)
class ToolCall(TypedDict):
    """One call; the message with its result names `id`."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    type: Literal["function"]
    function: CalledFunction


def schema_of_call(tools: Sequence[Tool]) -> dict[str, Any]:
    """The JSON schema of a call of one of the tools; each `$ref` stays within its tool."""
    closed = {"type": "object", "additionalProperties": False}
    return {
        "anyOf": [
            {
                **closed,
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "arguments": {
                        **(tool["function"].get("parameters") or closed),
                        "$id": f"tool:{place}",
                    },
                },
                "required": ["name", "arguments"],
            }
            for place, tool in enumerate(tools)
        ]
    }
