"""Keys, roles and tenants: who may do what, and that nobody reaches another's users."""

import time

import pytest
from starlette.testclient import TestClient

from palate.core.errors import InvalidInputError
from palate.serve.auth import is_loopback, require_safe_host
from palate.store.keys import issue_key, revoke_key

TALK = {"model": "palate", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
CHAT = "/v1/chat/completions"


def as_(client: TestClient, name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {client.app.state.keys[name]}"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Basic dXNlcg==",
        "Bearer ' OR 1=1 --",
        "Bearer " + "x" * 5000,
        "Bearer pk_00000000_\xe4",
    ],
)
def test_no_key_or_a_wrong_one_is_refused(guarded: TestClient, value: str | None) -> None:
    headers = {} if value is None else {"authorization": value.encode("latin-1")}
    for response in (
        guarded.post(CHAT, json=TALK, headers=headers),
        guarded.get("/v1/models", headers=headers),
        guarded.get("/v1/users/ana", headers=headers),
        guarded.get("/metrics", headers=headers),
    ):
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"


def test_expired_and_revoked_keys_are_refused(guarded: TestClient) -> None:
    database = guarded.app.state.served.database  # type: ignore[attr-defined]
    expired = issue_key(database, tenant="a", lasts_seconds=1.0, clock=lambda: 1000.0)
    revoked = issue_key(database, tenant="a")
    bearer = {"authorization": f"Bearer {revoked}"}
    assert guarded.get("/v1/models", headers=bearer).status_code == 200
    revoke_key(database, prefix=revoked.split("_")[1])
    for key in (expired, revoked):
        response = guarded.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        assert response.status_code == 401


def test_health_and_readiness_and_the_page_need_no_key(guarded: TestClient) -> None:
    assert guarded.get("/health").json() == {"status": "alive"}
    assert guarded.get("/ready").json() == {"status": "ready"}
    assert guarded.get("/").status_code == 200


def test_users_cannot_do_what_administrators_can(guarded: TestClient) -> None:
    user, admin = as_(guarded, "user"), as_(guarded, "admin")
    assert guarded.post("/v1/users", json={"user": "role"}, headers=user).status_code == 201
    for method, path in (
        ("GET", "/v1/users"),
        ("GET", "/v1/users/role/export"),
        ("DELETE", "/v1/users/role"),
        ("GET", "/metrics"),
    ):
        assert guarded.request(method, path, headers=user).status_code == 403
    assert guarded.get("/v1/users", headers=admin).status_code == 200
    assert guarded.delete("/v1/users/role", headers=admin).status_code == 200


def test_tenants_cannot_see_or_influence_each_other(guarded: TestClient) -> None:
    mine, theirs = as_(guarded, "admin"), as_(guarded, "other")
    assert (
        guarded.post(
            "/v1/users", json={"user": "eve", "preference": {"kind": 1.0}}, headers=mine
        ).status_code
        == 201
    )
    asked = {**TALK, "seed": 5, "palate": {"user": "eve"}}
    answer = guarded.post(CHAT, json=asked, headers=mine).json()
    response = answer["palate"]["response"]
    thumbs = {"response": response, "kind": "thumbs", "thumbs": "up"}
    kept = guarded.post("/v1/feedback", json=thumbs, headers=mine)
    assert kept.status_code == 200
    before = guarded.get("/v1/users/eve", headers=mine).json()

    assert guarded.get("/v1/users/eve", headers=theirs).status_code == 404
    assert guarded.get("/v1/users/eve/export", headers=theirs).status_code == 404
    assert guarded.delete("/v1/users/eve", headers=theirs).status_code == 404
    assert guarded.post("/v1/users/eve/reset", json={}, headers=theirs).status_code == 404
    change = {"preference": {"short": 1.0}}
    assert guarded.patch("/v1/users/eve", json=change, headers=theirs).status_code == 404
    assert guarded.post("/v1/feedback", json=thumbs, headers=theirs).status_code == 404
    assert guarded.get("/v1/users", headers=theirs).json()["users"] == []
    own = {**TALK, "palate": {"user": "eve"}}
    theirs_answer = guarded.post(CHAT, json=own, headers=theirs).json()
    assert theirs_answer["palate"]["n_feedback"] == 0
    assert theirs_answer["palate"]["method"] == "portfolio"  # of their eve nothing is known
    other = theirs_answer["palate"]["response"]
    crossed = {"response": other, "kind": "comparison", "preferred": 0, "against": response}
    assert guarded.post("/v1/feedback", json=crossed, headers=theirs).status_code == 404
    assert guarded.post("/v1/feedback", json=crossed, headers=mine).status_code == 404

    assert guarded.get("/v1/users/eve", headers=mine).json() == before
    again = guarded.post(CHAT, json=asked, headers=mine).json()
    assert again["choices"][0]["message"] == answer["choices"][0]["message"]
    assert guarded.delete("/v1/users/eve", headers=theirs).json()["n_rows"] >= 1  # their own eve
    assert guarded.get("/v1/users/eve", headers=mine).json() == before


def test_no_tenant_is_told_by_the_time_taken_what_another_asked(guarded: TestClient) -> None:
    talk = {**TALK, "messages": [{"role": "user", "content": "A question of mine alone?"}]}

    def cached(name: str) -> int:
        usage = guarded.post(CHAT, json=talk, headers=as_(guarded, name)).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert [cached(name) for name in ("admin", "other", "admin", "other")] == [0, 0, 16, 16]


def test_an_erasure_drops_what_is_cached_of_the_tenants_prompts(guarded: TestClient) -> None:
    served = guarded.app.state.served  # type: ignore[attr-defined]
    cache = served.worker._session._runner._prefixes
    talk = {**TALK, "messages": [{"role": "user", "content": "A long question of one who goes?"}]}
    talk["palate"] = {"user": "gone"}
    guarded.post(CHAT, json=talk, headers=as_(guarded, "other"))
    before = cache.n_tokens
    guarded.post(CHAT, json=talk, headers=as_(guarded, "admin"))
    assert cache.n_tokens > before > 0
    guarded.delete("/v1/users/gone", headers=as_(guarded, "admin"))
    for _ in range(100):
        if cache.n_tokens <= before:
            break
        time.sleep(0.05)
    assert 0 < cache.n_tokens <= before  # the other tenant's
    usages = [
        guarded.post(CHAT, json=talk, headers=as_(guarded, "admin")).json()["usage"]
        for _ in range(2)
    ]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
    assert cached[0] == 0 < cached[1]  # from then on prompts are cached again


def test_a_public_address_needs_keys() -> None:
    with pytest.raises(InvalidInputError, match="no key was issued"):
        require_safe_host("0.0.0.0", has_keys=False)  # noqa: S104  it is refused
    require_safe_host("0.0.0.0", has_keys=True)  # noqa: S104  it has keys
    require_safe_host("127.0.0.1", has_keys=False)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104  only named
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_addresses_of_this_machine_only_are_told_from_others(host: str, *, is_local: bool) -> None:
    assert is_loopback(host) == is_local
