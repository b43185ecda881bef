"""Requests that break: each ends alone with a sentence, and everybody else has an answer."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from starlette.testclient import TestClient

from palate.library.library import Library

POISON = "~~~"  # no answer says it by chance
N_REQUESTS = 50
CHAT = "/v1/chat/completions"


@contextmanager
def broken(library: Library, kind: str) -> Iterator[None]:
    """Prompts with `POISON` break what the engine does with them."""
    token = library.base.tokenizer("~", add_special_tokens=False)["input_ids"][0]

    def hook(_module: torch.nn.Module, args: tuple[torch.Tensor], output: torch.Tensor):
        is_token = args[0] == token
        hit = is_token & (is_token.sum(dim=-1, keepdim=True) >= len(POISON))
        if kind == "pass" and bool(hit.any()):
            raise RuntimeError("shape '[3, 56, 32]' is invalid")
        return output.masked_fill(hit.unsqueeze(-1), torch.nan)

    handle = library.base.model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def with_template(library: Library) -> Iterator[None]:
    """A template that refuses conversations with `POISON`."""
    tokenizer = library.base.tokenizer
    tokenizer.chat_template = (
        "{% if '" + POISON + "' in messages[0].content %}{{ raise_exception('no tildes') }}"
        "{% endif %}{{ messages[0].content }}"
    )
    try:
        yield
    finally:
        tokenizer.chat_template = None


@pytest.mark.parametrize(
    ("kind", "words"), [("pass", "RuntimeError"), ("nan", "NaN"), ("template", "no tildes")]
)
def test_one_poisoned_request_in_fifty_harms_no_other(
    kind: str, words: str, web: TestClient, opened: Library
) -> None:
    def post(place: int) -> tuple[int, str]:
        text = f"Why {POISON}?" if place == N_REQUESTS // 2 else f"Why {place}?"
        asked = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 4,
            "model": "palate",
        }
        response = web.post(CHAT, json={**asked, "palate": {"method": "base"}})
        return response.status_code, response.text

    context = with_template(opened) if kind == "template" else broken(opened, kind)
    with context, ThreadPoolExecutor(16) as pool:
        results = list(pool.map(post, range(N_REQUESTS)))
    status, body = results.pop(N_REQUESTS // 2)
    assert status == 400
    assert words in body
    assert [body for status, body in results if status != 200] == []
