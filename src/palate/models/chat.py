"""Text as a model reads it: chat template or plain, and token ids."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from palate.core.decision import Messages, require_messages
from palate.core.errors import InvalidInputError
from palate.models.load import Base
from palate.models.template import render_chat

Message = Mapping[str, Any]
SYSTEM_VARIABLE = "PALATE_SYSTEM_ROLE"
_ROLES = ("system", "user", "assistant", "tool")
BREAK = "\ufdd0"  # no character of any text: ends a token where it stands


def format_messages(base: Base, messages: Messages) -> str:
    """The prompt as the base reads it, ending where the answer begins.

    With a chat template the template decides; where it knows no system role, set
    `PALATE_SYSTEM_ROLE=user`, and the system's text stands before the user's first. Without one a
    string is used as it is, and messages are joined by blank lines, which plain base models
    continue best.

    Raises:
        InvalidInputError: no messages, an unknown role, a content that is not a string, tools
            without a template that takes them, or a conversation that the template refuses.
    """
    has_template = getattr(base.tokenizer, "chat_template", None) is not None
    if isinstance(messages, str):
        if not has_template:
            return messages
        messages = [{"role": "user", "content": messages}]
    require_messages(messages)
    strange = [message["role"] for message in messages if message["role"] not in _ROLES]
    if strange:
        raise InvalidInputError(
            f"The message role {strange[0]!r} is unknown; use one of {', '.join(_ROLES)}."
        )
    tools = [tool for message in messages for tool in message.get("tools", ())]
    if tools or any(message["role"] == "tool" or "tool_calls" in message for message in messages):
        _require_tools(base, tools, has_template=has_template)
    if has_template:
        if os.environ.get(SYSTEM_VARIABLE) == "user":
            messages = _with_system_in_user(messages)
        return render_chat(base.tokenizer, messages, base=base.path, tools=tools)
    return "\n\n".join(message["content"] for message in messages)


def encode_prompt(base: Base, prompt: str) -> list[int]:
    """Token ids of a formatted prompt; a beginning token is added unless the text starts with it.

    Raises:
        InvalidInputError: nothing is left to read.
    """
    start = base.tokenizer.bos_token
    has_start = bool(start) and prompt.startswith(str(start))
    ids = token_ids(base, prompt, has_specials=not has_start)
    end = base.tokenizer.eos_token
    if len(ids) > 1 and ids[-1] == base.tokenizer.eos_token_id and not prompt.endswith(str(end)):
        ids.pop()  # a tokenizer that ends every text would end the prompt before its answer
    if not ids and base.tokenizer.bos_token_id is not None:
        return [int(str(base.tokenizer.bos_token_id))]
    if not ids:
        raise InvalidInputError(
            "The prompt is empty, and the model has no beginning token; give text."
        )
    return ids


def encode_answer(base: Base, prompt: str, answer: str, *, is_ended: bool) -> list[int]:
    """Token ids that the answer adds to the formatted prompt, an end token if `is_ended`."""
    before = encode_prompt(base, prompt)
    whole = encode_prompt(base, prompt + answer)
    is_apart = whole[: len(before)] == before  # or the border fell inside a token
    ids = whole[len(before) :] if is_apart else token_ids(base, answer)
    if is_ended and base.tokenizer.eos_token_id is not None:
        ids = [*ids, int(str(base.tokenizer.eos_token_id))]
    return ids


def without_special_tokens(base: Base, text: str) -> str:
    """The text with a break inside what would be read as one of the tokenizer's added tokens."""
    tokenizer: Any = base.tokenizer
    text = text.replace(BREAK, "").encode(errors="replace").decode()
    for token in tokenizer.get_added_vocab():
        if not token.isspace():
            text = text.replace(token, token[:1] + BREAK + token[1:])
    return text


def token_ids(base: Base, text: str, *, has_specials: bool = False) -> list[int]:
    """Token ids of a text as it stands; InvalidInputError where the base has no embedding of one.

    `has_specials` adds what the tokenizer puts around texts.
    """
    first, *rest = text.encode(errors="replace").decode().split(BREAK)  # no half surrogates
    ids: Any = base.tokenizer(first, add_special_tokens=has_specials)["input_ids"]
    pieces = [base.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in rest]
    token_ids = [int(i) for piece in [ids, *pieces] for i in piece]
    if token_ids and max(token_ids) >= base.n_vocab:
        raise InvalidInputError(
            f"The text has the token {base.tokenizer.decode([max(token_ids)])!r}, of which the "
            f"base {base.path!r} has no embedding; leave it out."
        )
    return token_ids


def require_prompt_fits(base: Base, prompt: str) -> None:
    """Return if the prompt, formatted, leaves positions to answer; InvalidInputError where not."""
    most = base.n_positions
    if most is not None and (n_tokens := len(encode_prompt(base, prompt))) >= most:
        raise InvalidInputError(
            f"The prompt has {n_tokens} tokens, but the base reads {most} with the answer; "
            "shorten it."
        )


def require_answers_fit(base: Base, max_tokens: int, *, key: str) -> None:
    """Return if answers of so many tokens, set by `key`, fit; InvalidInputError where not."""
    most = base.n_positions
    if most is not None and max_tokens >= most:
        raise InvalidInputError(
            f"The key {key!r} has the value {max_tokens}, but the base reads {most} tokens with "
            "the prompt; use a smaller one."
        )


def _with_system_in_user(messages: Sequence[Message]) -> list[Message]:
    system = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    for place, message in enumerate(rest):
        if message["role"] == "user":
            text = "\n\n".join([*system, message["content"]])
            return [*rest[:place], {**message, "content": text}, *rest[place + 1 :]]
    return list(messages)


def _require_tools(base: Base, tools: Sequence[Any], *, has_template: bool) -> None:
    tokenizer: Any = base.tokenizer
    if not (has_template and "tools" in tokenizer.get_chat_template(tools=tools)):
        raise InvalidInputError(
            f"The chat template of the base {base.path!r} takes no tools; leave tools out, or ask "
            "for JSON with response_format."
        )
