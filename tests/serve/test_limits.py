"""What is bounded: rate, queue, time, open requests; and that a server which stops lets go."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from palate.engine import request
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.serve import answers
from palate.serve.limits import RateLimit
from palate.serve.state import Served

CHAT = "/v1/chat/completions"
TALK = {"model": "palate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}


def test_a_bucket_fills_at_its_rate() -> None:
    now = [0.0]
    limit = RateLimit(per_minute=60, burst=2, clock=lambda: now[0])
    assert [limit.take("a") for _ in range(3)] == [0.0, 0.0, pytest.approx(1.0)]
    assert limit.take("b") == 0.0  # of another key
    now[0] = 0.5
    assert limit.take("a") == pytest.approx(0.5)
    now[0] = 1.0
    assert limit.take("a") == 0.0
    now[0] = 1000.0  # never more than the burst
    assert [limit.take("a") for _ in range(3)] == [0.0, 0.0, pytest.approx(1.0)]


def test_too_many_calls_are_refused_with_the_time_to_wait(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(requests_per_minute=1, burst=1)  # ten times that where no keys are
    codes = [client.get("/v1/models") for _ in range(12)]
    assert [response.status_code for response in codes] == [200] * 10 + [429] * 2
    assert 1 <= int(codes[-1].headers["retry-after"]) <= 6
    assert codes[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert client.get("/health").status_code == 200


def test_a_full_queue_refuses_with_429_and_is_empty_again_afterwards(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of(max_num_seqs=1, max_queue=2)
    long = {**TALK, "max_tokens": 64}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: client.post(CHAT, json=long), range(8)))
    codes = [response.status_code for response in found]
    assert set(codes) == {200, 429}
    refused = next(response for response in found if response.status_code == 429)
    assert refused.json()["error"]["code"] == "queue_full"
    assert int(refused.headers["retry-after"]) >= 1
    assert client.post(CHAT, json={**TALK, "n": 3}).status_code == 429  # more than ever fit
    assert client.post(CHAT, json=TALK).status_code == 200
    served: Served = client.app.state.served  # type: ignore[attr-defined]
    assert not served.worker._jobs


def test_an_answer_that_takes_too_long_is_let_go_of(client_of: Callable[..., TestClient]) -> None:
    client = client_of(deadline_seconds=0.001)
    late = client.post(CHAT, json={**TALK, "max_tokens": 64})
    assert late.status_code == 504
    assert late.json()["error"]["code"] == "deadline_exceeded"
    served: Served = client.app.state.served  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while served.worker._jobs or "palate_requests_running 0.0" not in client.get("/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_prompt_is_tokenised_once_and_never_on_the_engines_thread(
    client_of: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(base: Base, prompt: str) -> list[int]:
        calls.append(threading.current_thread().name)
        return encode_prompt(base, prompt)

    monkeypatch.setattr(answers, "encode_prompt", counted)
    monkeypatch.setattr(request, "encode_prompt", counted)
    assert client_of().post(CHAT, json={**TALK, "n": 8}).status_code == 200
    assert len(calls) == 1
    assert calls[0] != "palate-engine"


def test_a_server_that_stops_refuses_new_requests_and_says_so(
    client_of: Callable[..., TestClient],
) -> None:
    client = client_of()
    served: Served = client.app.state.served  # type: ignore[attr-defined]
    assert client.get("/ready").status_code == 200
    served.is_draining = True
    assert client.get("/ready").status_code == 503
    refused = client.post(CHAT, json=TALK)
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert client.get("/health").status_code == 200


def test_metrics_count_and_hold_nothing_of_a_user(client_of: Callable[..., TestClient]) -> None:
    client = client_of()
    palate = {"user": "secret-name", "preference": {"kind": 1.0}}
    body = {**TALK, "seed": 3, "palate": palate}  # some seeds end an answer before four tokens
    assert client.post(CHAT, json=body).status_code == 200
    assert client.get("/v1/users/secret-name").status_code == 200
    text = client.get("/metrics").text
    assert 'palate_answers_total{method="prompted-soup"} 1.0' in text
    assert "palate_completion_tokens_total 4.0" in text
    assert "palate_first_token_seconds_count 1.0" in text
    assert 'palate_requests_total{route="/v1/users/{user}",status="200"} 1.0' in text
    assert "secret-name" not in text
