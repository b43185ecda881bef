"""Chat templates: programs that come with a base, rendered in a sandbox and within a bound of time.

transformers renders them in Jinja's sandbox, which keeps them from everything but their own
values; it does not end loops, so a rendering has a thread that is stopped where it takes too long.
"""

import ctypes
from collections.abc import Mapping, Sequence
from threading import Thread
from typing import Any

from palate.core.errors import InvalidInputError

MAX_SECONDS = 2.0  # of a rendering, which takes milliseconds


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], *, base: str, tools: Sequence[Any] = ()
) -> str:
    """The conversation as the tokenizer's chat template writes it, up to where the answer begins.

    Raises:
        InvalidInputError: the template refuses the conversation, with the template's own sentence,
            is broken, or does not end.
    """
    texts: list[str] = []
    errors: list[Exception] = []

    def render() -> None:
        try:
            plain = [{k: v for k, v in one.items() if k != "tools"} for one in messages]
            form = {"tokenize": False, "add_generation_prompt": True}
            texts.append(
                str(tokenizer.apply_chat_template(plain, tools=list(tools) or None, **form))
            )
        except Exception as error:  # noqa: BLE001  templates raise anything
            errors.append(error)

    thread = Thread(target=render, daemon=True)
    thread.start()
    thread.join(MAX_SECONDS)
    if thread.is_alive():
        stop = ctypes.pythonapi.PyThreadState_SetAsyncExc
        stop(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(TimeoutError))
        errors.insert(0, TimeoutError(f"it takes more than {MAX_SECONDS:g} s"))
    if errors:
        reason = str(errors[0]).strip().partition("\n")[0][:200] or type(errors[0]).__name__
        raise InvalidInputError(
            f"The chat template of the base {base!r} refuses the conversation ({reason}); change "
            "the conversation or the template."
        ) from errors[0]
    return texts[0]
