"""The calls of tools that an answer holds.

Models write calls as their chat template taught them: JSON objects of a name and arguments, as the
whole answer, in a list, or each between `<tool_call>` tags. Anything else is text.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, cast

from palate.serve.wire.tools import CalledFunction, Tool, ToolCall

TAG, END = "<tool_call>", "</tool_call>"
ARGUMENTS = ("arguments", "parameters")  # what templates call them


def calls_in(text: str, tools: Sequence[Tool]) -> tuple[str, list[ToolCall]]:
    """The text before the calls, and the calls; all text where not every call is of a tool."""
    before, tag, rest = text.partition(TAG)
    bodies = [part.partition(END)[0] for part in rest.split(TAG)] if tag else [text]
    try:
        parsed = [json.loads(body) for body in bodies]
    except (ValueError, RecursionError):
        return text, []
    values = [call for body in parsed for call in (body if isinstance(body, list) else [body])]
    calls = [_call_of(call, [tool["function"]["name"] for tool in tools]) for call in values]
    if None in calls or not calls:
        return text, []
    return (before.strip() if tag else ""), cast(list[ToolCall], calls)


def n_plain(text: str) -> int:
    """Characters from the first on that belong to no call, whatever follows."""
    if text.lstrip()[:1] in ("", "{", "["):
        return 0
    place = text.find(TAG)
    if place >= 0:
        return place
    return len(text) - max(n for n in range(len(TAG)) if text.endswith(TAG[:n]))


def _call_of(value: Any, names: Sequence[str]) -> ToolCall | None:
    call: Mapping[str, Any] = value if isinstance(value, dict) else {}
    given = [call[key] for key in ARGUMENTS if isinstance(call.get(key), dict)]
    if call.get("name") not in names or not given:
        return None
    arguments = json.dumps(given[0], ensure_ascii=False).encode(errors="replace").decode()
    function = CalledFunction(name=call["name"], arguments=arguments)
    return ToolCall(id=f"call-{uuid.uuid4().hex}", type="function", function=function)
