"""Experts join and leave a running server; nobody else notices."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from palate.core.errors import FormatError
from palate.library.experts import add_expert
from palate.library.library import Library
from palate.serve.app import make_app
from palate.serve.assemble import assemble
from palate.serve.settings import ServeSettings
from palate.serve.state import Served
from palate.store.keys import issue_key

CHAT = "/v1/chat/completions"
LOCAL = "http://localhost"
FREE: dict[str, Any] = {"requests_per_minute": 10_000_000, "burst": 1_000_000}
SHY = {"name": "shy", "preference": {"kind": 1.0}}
N_USERS = 5


@dataclass
class Place:
    """A library's folder that may change, adapters to add, and a database."""

    library: Path
    adapters: Path
    url: str

    def served(self, **settings: Any) -> Served:
        values = {**FREE, "experts_folder": self.adapters, "max_tokens": 200, **settings}
        library = Library.load(self.library)
        return assemble(library, ServeSettings(**values), database=self.url)


@pytest.fixture
def place(tiny_soup_library: Path, tmp_path: Path) -> Place:
    library = shutil.copytree(tiny_soup_library, tmp_path / "library")
    shutil.copytree(library / "experts/kind", tmp_path / "adapters/shy")
    return Place(library, tmp_path / "adapters", f"sqlite:///{tmp_path}/users.db")


@contextmanager
def client(served: Served) -> Iterator[TestClient]:
    with TestClient(make_app(served), base_url=LOCAL, raise_server_exceptions=False) as web:
        yield web


def asked(text: str = "Why?", *, n: int = 24, **palate: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    body = {"model": "palate", "messages": messages, "max_tokens": n, "temperature": 0}
    return {**body, "palate": {"method": "soup", **palate}}


def text_of(web: TestClient, **palate: Any) -> str:
    answer = web.post(CHAT, json=asked(**palate))
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["message"]["content"]


def until(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def hooks(served: Served) -> int:
    return sum(len(module._forward_hooks) for module in served.library.base.model.modules())


@pytest.mark.slow
def test_an_expert_joins_and_leaves_under_load_and_nobody_else_notices(place: Place) -> None:
    served = place.served()
    names = list(served.library.manifest.expert_names)
    users = [{names[k % len(names)]: 0.5 + 0.1 * k} for k in range(N_USERS)]
    texts: list[set[str]] = [set() for _ in users]
    n_answers, is_over, began = [0], threading.Event(), threading.Event()
    with client(served) as web, ThreadPoolExecutor(N_USERS + 1) as pool:
        n_hooks = hooks(served)

        def keep_asking(place: int) -> None:
            while not is_over.is_set():
                texts[place].add(text_of(web, coefficients=users[place]))
                n_answers[0] += 1

        def stream_long() -> str:
            body = {**asked(n=200, coefficients={names[0]: 0.5}), "stream": True}
            pieces: list[str] = []
            with web.stream("POST", CHAT, json=body) as response:
                for line in response.iter_lines():
                    began.set()
                    pieces.append(line)
            return "".join(pieces)

        alone = stream_long()
        began.clear()
        asking = [pool.submit(keep_asking, k) for k in range(N_USERS)]
        until(lambda: n_answers[0] >= N_USERS)
        streamed = pool.submit(stream_long)
        assert began.wait(60)
        added = web.post("/v1/experts", json=SHY)
        assert added.status_code == 201, added.text
        assert added.json()["experts"] == [*names, "shy"]
        assert text_of(web, coefficients={"shy": 0.8}) == text_of(web, coefficients={"kind": 0.8})
        removed = web.delete("/v1/experts/shy")
        assert removed.status_code == 200, removed.text
        assert removed.json()["experts"] == names
        gone = web.post(CHAT, json=asked(coefficients={"shy": 0.8}))
        assert gone.status_code == 400
        is_over.set()
        assert [one.exception() for one in asking] == [None] * N_USERS  # no answer failed
        assert contents(streamed.result()) == contents(alone)
        until(lambda: not served.retiring)
        assert hooks(served) == n_hooks  # the experts of before are off the base
        assert len(served.worker._sessions) == 1
    assert [len(one) for one in texts] == [1] * N_USERS  # equal greedy tokens all along


def contents(stream: str) -> list[str]:
    events = [json.loads(part) for part in stream.split("data: ")[1:] if part != "[DONE]"]
    assert stream.endswith("[DONE]")
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return [delta["content"] for delta in deltas if "content" in delta]


def believed(web: TestClient, user: str) -> dict[str, tuple[float, ...]]:
    experts = web.get(f"/v1/users/{user}").json()["belief"]["experts"]
    return {one["name"]: (one["mean"], one["low"], one["high"]) for one in experts}


def teach(web: TestClient, *kinds: str) -> str:
    first = ""
    for place, kind in enumerate(kinds):
        answer = web.post(CHAT, json=asked(f"Why {place}?", n=6, user="ana", method="base"))
        verdict = {"response": answer.json()["id"], "kind": "thumbs", "thumbs": kind}
        given = web.post("/v1/feedback", json=verdict)
        assert given.status_code == 200, given.text
        first = first or answer.json()["id"]
    return first


@pytest.mark.slow
def test_beliefs_gain_a_coordinate_at_the_prior_and_lose_it_again(place: Place) -> None:
    with client(place.served()) as web:
        response = teach(web, "up", "down", "up", "up")
        before, unknown = believed(web, "ana"), believed_prior(web)
        assert before != unknown
        web.post("/v1/experts", json=SHY)
        after = believed(web, "ana")
        assert list(after) == [*before, "shy"]
        for name, values in before.items():
            assert after[name] == pytest.approx(values)
        assert after["shy"] == pytest.approx(believed_prior(web)["shy"])
        assert after["shy"][0] == 0.0
        verdict = {"response": response, "kind": "thumbs", "thumbs": "up"}
        again = web.post("/v1/feedback", json=verdict).json()  # a verdict that is there already
        assert again["is_new"] is False
        teach(web, "down")
        assert believed(web, "ana")["shy"][0] != 0.0
    with client(place.served()) as web:  # the same database, after a restart
        assert believed(web, "ana")["shy"][0] != 0.0
        kept = believed(web, "ana")
        web.delete("/v1/experts/shy")
        assert list(believed(web, "ana")) == list(before)
        web.post("/v1/experts", json=SHY)
        again = believed(web, "ana")
        for name, values in kept.items():  # what was learned comes back with it
            assert again[name] == pytest.approx(values)


def believed_prior(web: TestClient) -> dict[str, tuple[float, ...]]:
    web.post("/v1/users", json={"user": "new"})
    return believed(web, "new")


def test_states_of_a_library_that_changed_are_those_that_it_measures_itself(place: Place) -> None:
    library = Library.load(place.library)
    assert library.states.tilts.shape[2] == 3
    add_expert(library, "shy", place.adapters / "shy", wanted={"kind": 1.0})
    more = library.reloaded()
    own = Library.load(place.library).states
    assert np.allclose(more.states.tilts, own.tilts, atol=1e-5)
    assert np.allclose(more.states.reference, own.reference, atol=1e-5)
    more.files.without_expert("kind")
    left = more.reloaded().states.tilts
    assert np.allclose(left[..., -1], own.tilts[..., -1], atol=1e-5)
    assert left.shape[2] == 3


def test_a_library_that_lost_an_expert_while_nobody_served_it_is_refused(place: Place) -> None:
    place.served().database.close()
    library = Library.load(place.library)
    library.files.without_expert(library.manifest.expert_names[-1])
    (place.library / "soup.json").unlink()
    with pytest.raises(FormatError, match="each library its own database"):
        place.served()


def test_what_does_not_fit_is_refused_and_changes_nothing(place: Place) -> None:
    served = place.served()
    shutil.copytree(place.adapters / "shy", place.adapters / "broken")
    (place.adapters / "broken/adapter_model.safetensors").write_bytes(b"no tensors")
    before = (place.library / "library.json").read_bytes()
    manifest = served.library.manifest
    with client(served) as web:

        def refusal(body: dict[str, Any], status: int = 400) -> str:
            answer = web.post("/v1/experts", json=body)
            assert answer.status_code == status, answer.text
            return answer.json()["error"]["message"]

        assert "no adapter 'none'" in refusal({**SHY, "name": "none"})
        assert "name '../x' is not allowed" in refusal({**SHY, "name": "../x"})
        assert "has an expert 'kind'" in refusal({**SHY, "name": "kind"})
        assert "unknown objective 'odd'" in refusal({**SHY, "preference": {"odd": 1.0}})
        assert "sum" in refusal({**SHY, "preference": {"kind": 0.5}})
        assert "broken' cannot be read" in refusal({**SHY, "name": "broken"})
        missing = web.delete("/v1/experts/none")
        assert (missing.status_code, "no expert 'none'" in missing.text) == (400, True)
        last = manifest.expert_names[-1]
        for name in manifest.expert_names[:-1]:
            web.delete(f"/v1/experts/{name}")
        stays = web.delete(f"/v1/experts/{last}")
        assert stays.status_code == 400
        assert "stays, because" in stays.json()["error"]["message"]
    assert (
        json.loads(before)["base"]
        == json.loads((place.library / "library.json").read_text())["base"]
    )


def test_only_administrators_of_the_server_change_experts(place: Place) -> None:
    served = place.served()
    served.has_keys = True
    keys = {
        "user": issue_key(served.database),
        "tenant": issue_key(served.database, tenant="b", role="admin"),
        "admin": issue_key(served.database, role="admin"),
    }
    with client(served) as web:
        status = {
            name: web.post(
                "/v1/experts", json=SHY, headers={"Authorization": f"Bearer {key}"}
            ).status_code
            for name, key in keys.items()
        }
    assert status == {"user": 403, "tenant": 403, "admin": 201}


def test_experts_are_fixed_without_a_folder_and_where_another_server_answers(
    place: Place,
) -> None:
    with client(place.served(experts_folder=None)) as web:
        fixed = web.post("/v1/experts", json=SHY)
        assert (fixed.status_code, fixed.json()["error"]["code"]) == (403, "experts_fixed")
    served = place.served()
    served.open_engine = None  # as of an engine that cannot be opened twice
    with client(served) as web:
        refused = web.post("/v1/experts", json=SHY)
        assert refused.status_code == 400
        assert "restart the server" in refused.json()["error"]["message"]
    assert "shy" not in Library.load(place.library).manifest.expert_names


@pytest.mark.slow
def test_servers_of_one_folder_converge_and_go_on_where_it_is_broken(place: Place) -> None:
    first, second = (place.served(watch_seconds=0.1) for _ in range(2))
    path = place.library / "library.json"
    with client(first) as web, client(second) as other:
        assert web.post("/v1/experts", json=SHY).status_code == 201
        until(lambda: "shy" in second.library.manifest.expert_names)
        want = text_of(web, coefficients={"shy": 0.8})
        assert text_of(other, coefficients={"shy": 0.8}) == want
        whole = path.read_bytes()
        path.write_text("{}")
        time.sleep(1.0)
        assert text_of(other, coefficients={"shy": 0.8}) == want
        path.write_bytes(whole)
        assert web.delete("/v1/experts/shy").status_code == 200
        until(lambda: "shy" not in second.library.manifest.expert_names)
