"""Endpoints over real HTTP: a small server around the tiny base, with faults on demand."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from palate.core.errors import FormatError, InvalidInputError, ProviderError
from palate.core.protocols import SamplingParams
from palate.engine.openai.endpoint import Endpoint, EndpointSettings, OpenAISettings
from palate.models.load import Base


class Server(ThreadingHTTPServer):
    """Answers `/v1/completions` with the base's own probabilities.

    Attributes:
        base: The model.
        names_ids: Name tokens by id, as vLLM does, or by text.
        extra_tokens: Added to the reported length of prompts, as another tokenizer would.
        faults: Status codes to answer with first; 0 hangs.
        has_log_probs: Give log-probabilities.
        is_chat_form: Give them as llama.cpp does, in the form of chats, with ids.
        has_rows: With lists in that form.
    """

    daemon_threads = True

    def __init__(self, base: Base) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.base = base
        self.names_ids = True
        self.extra_tokens = 0
        self.faults: list[int] = []
        self.has_log_probs = True
        self.is_chat_form = False
        self.has_rows = True
        self.n_requests = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.n_requests += 1
        fault = self.server.faults.pop(0) if self.server.faults else 200
        if fault == 0:
            time.sleep(1.0)
        if fault != 200:
            self.reply(fault or 200, {"error": {"message": "no luck"}})
            return
        if body.get("stream"):
            self.stream(self.completion(body))
        else:
            self.reply(200, self.completion(body))

    def stream(self, chunk: dict) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    def completion(self, body: dict) -> dict:
        base, prompt = self.server.base, body["prompt"]
        ids = base.tokenizer(prompt)["input_ids"] if isinstance(prompt, str) else prompt
        with torch.no_grad():
            log_probs = torch.log_softmax(base.model(torch.tensor([ids])).logits[0, -1], -1)
        token = int(log_probs.argmax())
        choice = {"index": 0, "text": base.tokenizer.decode([token]), "finish_reason": "length"}
        if body.get("logprobs") and self.server.has_log_probs:
            top = log_probs.topk(body["logprobs"])
            named = {self.name(int(i)): float(v) for v, i in zip(*top, strict=True)}
            choice["logprobs"] = {"tokens": [self.name(token)], "top_logprobs": [named]}
            if self.server.is_chat_form:
                rows = [{"id": int(i), "token": "", "logprob": float(v)}
                        for v, i in zip(*top, strict=True)]  # fmt: skip
                tops = {"top_logprobs": rows} if self.server.has_rows else {}
                choice["logprobs"] = {"content": [{**rows[0], **tops}]}
        usage = {"prompt_tokens": len(ids) + self.server.extra_tokens, "completion_tokens": 1}
        usage["total_tokens"] = usage["prompt_tokens"] + 1
        return {"id": "1", "object": "text_completion", "created": 0, "model": "m",
                "choices": [choice], "usage": usage}  # fmt: skip

    def name(self, token: int) -> str:
        if self.server.names_ids:
            return f"token_id:{token}"
        return self.server.base.tokenizer.decode([token])

    def reply(self, status: int, content: dict) -> None:
        payload = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def server(base: Base) -> Iterator[Server]:
    running = Server(base)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def expert_of(server: Server, base: Base, **changes) -> Endpoint:
    """The endpoint, after its tokenizer was compared."""
    own = {name: changes.pop(name) for name in ("tokenizer", "sends") if name in changes}
    settings = EndpointSettings(url=server.url, model="m", **own)
    use = OpenAISettings(endpoints={"m": settings}, **{"timeout_seconds": 20, **changes})
    expert = Endpoint(settings, base, use)
    expert.require_same_tokenizer()
    return expert


def own_log_probs(base: Base, context: list[int]) -> np.ndarray:
    with torch.no_grad():
        logits = base.model(torch.tensor([context])).logits[0, -1]
    return torch.log_softmax(logits, -1).numpy()


CONTEXT = [40, 41, 42, 43]


def test_lists_are_the_models_most_probable_tokens(base: Base, server: Server) -> None:
    found = expert_of(server, base).next_log_probs(CONTEXT, top_k=7)
    expected = own_log_probs(base, CONTEXT)
    assert sorted(found) == sorted(np.argsort(-expected)[:7].tolist())
    assert all(value == pytest.approx(expected[i], abs=1e-5) for i, value in found.items())
    longer = expert_of(server, base).next_log_probs(CONTEXT, top_k=50)
    assert len(longer) == 50


def test_lists_in_the_form_of_chats_are_read_by_their_ids(base: Base, server: Server) -> None:
    expected = expert_of(server, base).next_log_probs(CONTEXT, top_k=7)
    server.is_chat_form = True
    expert = expert_of(server, base)
    assert expert.next_log_probs(CONTEXT, top_k=7) == expected
    assert expert.sample(CONTEXT, seed=0) == max(expected, key=lambda token: expected[token])


def test_streams_in_the_form_of_chats_are_read_by_their_ids(base: Base, server: Server) -> None:
    expert, sampling = expert_of(server, base), SamplingParams(max_tokens=1)
    (plain,) = expert.stream(CONTEXT, sampling, seed=0, n_top=7)
    server.is_chat_form = True
    (step,) = expert.stream(CONTEXT, sampling, seed=0, n_top=7)
    assert (step[0], step[2]) == (plain[0], plain[2])
    assert step[1] == max(step[2].values()) < 0.0  # the greedy stand-in's own


def test_rows_without_a_list_are_one_sentence(base: Base, server: Server) -> None:
    expert = expert_of(server, base)
    server.is_chat_form, server.has_rows = True, False
    with pytest.raises(ProviderError, match="gave no log-probabilities; start it with them"):
        expert.next_log_probs(CONTEXT, top_k=7)


def test_tokens_named_by_text_are_mapped_back_and_ambiguous_ones_left_out(
    base: Base, server: Server
) -> None:
    server.names_ids = False
    found = expert_of(server, base).next_log_probs(CONTEXT, top_k=259)
    expected = own_log_probs(base, CONTEXT)
    assert 90 < len(found) < 259  # bytes that are no character of their own have no text
    assert all(value == pytest.approx(expected[i], abs=1e-5) for i, value in found.items())


def test_a_server_with_another_tokenizer_is_refused_naming_both(base: Base, server: Server) -> None:
    server.extra_tokens = 1
    with pytest.raises(FormatError, match=r"tokenizers of .*tiny.* and 'm at http.* differ"):
        expert_of(server, base)


def test_a_declared_tokenizer_is_compared(base: Base, server: Server) -> None:
    assert expert_of(server, base, tokenizer=base.path)
    with pytest.raises(InvalidInputError, match="The tokenizer '/nowhere' does not exist"):
        expert_of(server, base, tokenizer="/nowhere")


def test_overload_is_tried_again_with_pauses(base: Base, server: Server) -> None:
    expert = expert_of(server, base, n_retries=2)
    server.faults, before = [503, 429], server.n_requests
    assert len(expert.next_log_probs(CONTEXT, top_k=20)) == 20
    assert server.n_requests - before == 3


def test_what_stays_overloaded_is_an_error_that_may_pass(base: Base, server: Server) -> None:
    expert = expert_of(server, base, n_retries=0)
    server.faults = [503]
    with pytest.raises(ProviderError, match=r"status 503.*no luck") as caught:
        expert.next_log_probs(CONTEXT, top_k=20)
    assert caught.value.is_retryable


def test_a_refused_request_is_an_error_that_stays(base: Base, server: Server) -> None:
    expert = expert_of(server, base)
    server.faults, before = [404], server.n_requests
    with pytest.raises(ProviderError, match="status 404") as caught:
        expert.next_log_probs(CONTEXT, top_k=20)
    assert not caught.value.is_retryable
    assert server.n_requests - before == 1


def test_a_server_that_hangs_or_is_not_there_is_an_error_that_may_pass(
    base: Base, server: Server
) -> None:
    expert = expert_of(server, base, n_retries=0)
    slow = expert_of(server, base, n_retries=0, timeout_seconds=0.3)
    server.faults = [0]
    with pytest.raises(ProviderError, match=r"within 0.3 seconds in 1 attempts") as caught:
        slow.next_log_probs(CONTEXT, top_k=20)
    assert caught.value.is_retryable
    server.shutdown()
    server.server_close()
    with pytest.raises(ProviderError, match="did not answer"):
        expert.next_log_probs(CONTEXT, top_k=20)


def test_a_server_without_log_probabilities_can_only_be_sampled_from(
    base: Base, server: Server
) -> None:
    server.has_log_probs = False
    expert = expert_of(server, base)
    with pytest.raises(ProviderError, match="only sampled from"):
        expert.next_log_probs(CONTEXT, top_k=20)
    best = int(own_log_probs(base, CONTEXT).argmax())
    text = base.tokenizer.decode([best])
    if base.tokenizer(text)["input_ids"] == [best]:
        assert expert.sample(CONTEXT, seed=0) == best


def test_text_prompts_must_be_read_back_as_the_same_tokens(base: Base, server: Server) -> None:
    expert = expert_of(server, base, sends="text")
    ids = base.tokenizer("Hello")["input_ids"]
    expected = own_log_probs(base, ids)
    found = expert.next_log_probs(ids, top_k=20)
    assert all(value == pytest.approx(expected[i], abs=1e-5) for i, value in found.items())
    half = base.tokenizer("é")["input_ids"][:1]  # the first byte of two
    with pytest.raises(ProviderError, match="takes text only"):
        expert.next_log_probs(half, top_k=20)
