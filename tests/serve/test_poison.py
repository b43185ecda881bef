"""Requests that break: each ends alone with a sentence, and everybody else has an answer."""

import copy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from starlette.testclient import TestClient

from palate.library.library import Library

POISON = "~~~"  # no answer says it by chance
N_REQUESTS = 50
N_WAITING = 40  # of these, before the engine begins
SECONDS = 5.0
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


@contextmanager
def with_added_token(library: Library) -> Iterator[None]:
    """A tokenizer with `POISON` as a token of which the base has no embedding."""
    tokenizer, extended = library.base.tokenizer, copy.deepcopy(library.base.tokenizer)
    extended.add_tokens([POISON])
    object.__setattr__(library.base, "tokenizer", extended)
    try:
        yield
    finally:
        object.__setattr__(library.base, "tokenizer", tokenizer)


@contextmanager
def with_misfit_adapters(library: Library) -> Iterator[None]:
    """Experts on layers of another shape, as if nothing had compared them when they were loaded."""
    layers = {layer: layer.down for layer in library.bank._layers.values()}
    for layer, down in layers.items():
        object.__setattr__(layer, "down", down[:, :-1])
    try:
        yield
    finally:
        for layer, down in layers.items():
            object.__setattr__(layer, "down", down)


CONTEXTS = {
    "pass": lambda library: broken(library, "pass"),
    "nan": lambda library: broken(library, "nan"),
    "template": with_template,
    "token": with_added_token,
    "adapter": with_misfit_adapters,
}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("pass", "RuntimeError"),
        ("nan", "NaN"),
        ("template", "no tildes"),
        ("token", "has no embedding"),
        ("adapter", "RuntimeError"),
    ],
)
def test_one_poisoned_request_in_fifty_harms_no_other(
    kind: str, words: str, client_of: Callable[..., TestClient], opened: Library
) -> None:
    web = client_of(allow_special_tokens=True)

    def post(place: int) -> tuple[int, str]:
        is_poisoned = place == N_REQUESTS // 2
        text = f"Why {POISON}?" if is_poisoned else f"Why {place}?"
        asked = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 4,
            "model": "palate",
        }
        known = {"method": "base"}
        if is_poisoned and kind == "adapter":
            known = {"method": "soup", "preference": {"kind": 1.0}}
        response = web.post(CHAT, json={**asked, "palate": known})
        return response.status_code, response.text

    worker = web.app.state.served.worker  # type: ignore[attr-defined]

    def hold() -> None:
        """Keep the engine until requests wait, so that the poisoned one is batched with others."""
        deadline = time.monotonic() + SECONDS
        while worker._n_pending < N_WAITING and time.monotonic() < deadline:
            time.sleep(0.01)

    with CONTEXTS[kind](opened), ThreadPoolExecutor(N_REQUESTS) as pool:
        worker._commands.put(hold)
        results = list(pool.map(post, range(N_REQUESTS)))
    status, body = results.pop(N_REQUESTS // 2)
    assert status == 400
    assert words in body
    assert [body for status, body in results if status != 200] == []
