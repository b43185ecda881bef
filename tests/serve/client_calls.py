"""What one client of OpenAI's protocol does with a server; run in the clients' environment.

    python client_calls.py NAME ADDRESS

It prints a JSON object: the client's version, then what came of a chat, of a stream, of an answer
by a schema and of a forced call of a tool (not of `llm`), each the result or the error.
"""

import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel, Field

SAID = "Who are you?"
TALK: list[Any] = [{"role": "user", "content": SAID}]
SHORT = {"max_tokens": 6, "seed": 1}
LONG = {"max_tokens": 100, "seed": 1}
KEY = "none"
Calls = dict[str, Callable[[], Any]]


class Person(BaseModel, extra="forbid"):  # or a random model goes on with keys of its own
    """A person."""

    name: str = Field(max_length=4)
    age: int = Field(ge=0, le=99)


def openai(address: str) -> Calls:
    from openai import OpenAI, pydantic_function_tool

    client = OpenAI(base_url=address, api_key=KEY)
    create = client.chat.completions.create
    common: Any = {"model": "palate", "messages": TALK, "user": "ana"}
    tool: Any = {"tools": [pydantic_function_tool(Person)], "tool_choice": "required"}

    def called() -> Any:
        message = create(**common, **LONG, **tool).choices[0].message
        return json.loads(message.tool_calls[0].function.arguments)

    return {
        "chat": lambda: create(**common, **SHORT).choices[0].message.content,
        "stream": lambda: "".join(
            chunk.choices[0].delta.content or "" for chunk in create(**common, **SHORT, stream=True)
        ),
        "json": lambda: (
            client.chat.completions.parse(**common, **LONG, response_format=Person)
            .choices[0]
            .message.parsed
        ),
        "tools": called,
    }


def litellm(address: str) -> Calls:
    from litellm import completion
    from openai import pydantic_function_tool

    common: Any = {"model": "openai/palate", "messages": TALK, "api_base": address, "api_key": KEY}
    tool: Any = {"tools": [pydantic_function_tool(Person)], "tool_choice": "required"}

    def called() -> Any:
        message = completion(**common, **LONG, **tool).choices[0].message
        return json.loads(message.tool_calls[0].function.arguments)

    return {
        "chat": lambda: completion(**common, **SHORT).choices[0].message.content,
        "stream": lambda: "".join(
            chunk.choices[0].delta.content or ""
            for chunk in completion(**common, **SHORT, stream=True)
        ),
        "json": lambda: Person.model_validate_json(
            completion(**common, **LONG, response_format=Person).choices[0].message.content
        ),
        "tools": called,
    }


def langchain_openai(address: str) -> Calls:
    from langchain_openai import ChatOpenAI

    def model(sampling: dict[str, int]) -> Any:
        return ChatOpenAI(model="palate", base_url=address, api_key=KEY, **sampling)

    return {
        "chat": lambda: model(SHORT).invoke(SAID).content,
        "stream": lambda: "".join(chunk.content for chunk in model(SHORT).stream(SAID)),
        "json": lambda: (
            model(LONG).with_structured_output(Person, method="json_schema").invoke(SAID)
        ),
        "tools": lambda: (
            model(LONG).with_structured_output(Person, method="function_calling").invoke(SAID)
        ),
    }


def pydantic_ai(address: str) -> Calls:
    from pydantic_ai import Agent, NativeOutput, ToolOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel("palate", provider=OpenAIProvider(base_url=address, api_key=KEY))

    def agent(output: Any, sampling: Any) -> Any:
        return Agent(model, output_type=output, model_settings=sampling)

    def streamed() -> str:
        result = agent(str, SHORT).run_stream_sync(SAID)
        return "".join(result.stream_text(delta=True))

    return {
        "chat": lambda: agent(str, SHORT).run_sync(SAID).output,
        "stream": streamed,
        "json": lambda: agent(NativeOutput(Person), LONG).run_sync(SAID).output,
        "tools": lambda: agent(ToolOutput(Person), LONG).run_sync(SAID).output,
    }


def llm(address: str) -> Calls:
    from llm.default_plugins.openai_models import Chat

    model: Any = Chat("palate", key=KEY, api_base=address, supports_schema=True)

    def asked(**options: Any) -> Any:
        return model.prompt(SAID, key=KEY, **options)

    return {
        "chat": lambda: asked(**SHORT, stream=False).text(),
        "stream": lambda: "".join(asked(**SHORT, stream=True)),
        "json": lambda: Person.model_validate_json(asked(**LONG, schema=Person).text()),
    }


def instructor(address: str) -> Calls:
    from instructor import Mode, from_openai
    from openai import OpenAI

    def client(mode: Any) -> Any:
        return from_openai(OpenAI(base_url=address, api_key=KEY), mode=mode).chat.completions

    common: Any = {"model": "palate", "messages": TALK, "max_retries": 0}
    by_schema = Mode.JSON_SCHEMA

    def plain() -> str:
        answer = client(by_schema).create(**common, **SHORT, response_model=None)
        return answer.choices[0].message.content

    def streamed() -> str:
        parts = client(by_schema).create_partial(**common, **LONG, response_model=Person)
        return list(parts)[-1].model_dump_json()

    return {
        "chat": plain,
        "stream": streamed,
        "json": lambda: client(by_schema).create(**common, **LONG, response_model=Person),
        "tools": lambda: client(Mode.TOOLS).create(**common, **LONG, response_model=Person),
    }


def main(name: str, address: str) -> None:
    found: dict[str, Any] = {"version": version(name.replace("pydantic-ai", "pydantic-ai-slim"))}
    for what, call in globals()[name.replace("-", "_")](address).items():
        try:
            result = call()
            found[what] = result.model_dump() if isinstance(result, BaseModel) else result
        except Exception as error:  # noqa: BLE001  the test shows it
            found[what] = f"{type(error).__name__}: {error}"
    print("\n" + json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
