"""What is left in the middle, comes late, or is done twice; and answers that are not plain."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from page_steps import ask, create_user, wait_for_answer
from palate.store.database import open_database
from palate.store.keys import issue_key

pytestmark = pytest.mark.browser

CHAT, QUESTIONS = "**/v1/chat/completions", "**/v1/questions"
BUSY = {"error": {"message": "Busy.", "type": "server_error", "param": None, "code": None}}


def stream(*chunks: dict[str, Any], is_whole: bool = True) -> dict[str, Any]:
    """A routed answer of these chunks."""
    lines = [json.dumps(chunk) for chunk in chunks] + (["[DONE]"] if is_whole else [])
    body = "".join(f"data: {line}\n\n" for line in lines)
    return {"status": 200, "content_type": "text/event-stream", "body": body}


def piece(text: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None, **more}]}


def fill(page: Page, question: str) -> None:
    page.get_by_label("Your question").fill(question)


def test_a_comparison_that_was_left_neither_comes_back_nor_blanks_another(
    page: Page, complaints: list[str]
) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route(QUESTIONS, hold)
    create_user(page)
    fill(page, "hello")
    page.get_by_role("button", name="Compare two").dblclick()
    page.wait_for_timeout(300)
    expect(page.locator(".skeleton")).to_have_count(2)
    page.get_by_role("button", name="Answer", exact=True).click()
    wait_for_answer(page)
    page.unroute(QUESTIONS)
    assert len(held) == 2
    page.wait_for_timeout(300)
    expect(page.locator(".answer .answer-text")).to_have_count(1)
    expect(page.locator(".choice")).to_have_count(0)
    complaints.clear()


def test_nothing_that_names_an_erased_user_can_be_tried_again(
    page: Page, complaints: list[str]
) -> None:
    page.route(QUESTIONS, lambda route: route.fulfill(status=503, json=BUSY))
    create_user(page)
    fill(page, "hello")
    page.get_by_role("button", name="Compare two").click()
    expect(page.locator("#notices")).not_to_be_empty()
    page.get_by_role("button", name="Erase me").click()
    page.get_by_role("button", name="Erase everything").click()
    expect(page.get_by_role("dialog")).to_contain_text("Erased")
    expect(page.locator("#notices")).to_be_empty()
    complaints.clear()


def test_arrow_keys_over_the_stars_leave_one_rating(page: Page) -> None:
    create_user(page)
    ask(page, "hello")
    page.locator(".star input").first.focus()
    page.keyboard.press("Space")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".star.lit")).to_have_count(4)
    expect(page.locator(".learning")).to_contain_text("1 verdict,")


def test_a_half_answer_is_said_to_be_one_is_read_and_is_there_after_a_reload(
    page: Page, complaints: list[str]
) -> None:
    page.route(CHAT, lambda route: route.fulfill(**stream(piece("half of"), is_whole=False)))
    fill(page, "hello")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator("#notices")).to_contain_text("connection")
    expect(page.locator(".answer .answer-text")).to_have_text("half of")
    page.unroute(CHAT)
    page.reload()
    expect(page.locator(".answer .answer-text")).to_have_text("half of")
    with page.expect_request(CHAT) as caught:
        fill(page, "and now?")
        page.get_by_role("button", name="Answer", exact=True).click()
    sent = json.loads(caught.value.post_data or "")["messages"]
    assert [message["content"] for message in sent] == ["hello", "half of", "and now?"]
    complaints.clear()


def test_a_number_between_the_steps_of_a_closed_setting_is_sent(page: Page) -> None:
    page.locator(".settings summary").click()
    page.get_by_label("Temperature").fill("0.75")
    page.get_by_label("Tokens at most").fill("7.6")
    page.locator(".settings summary").click()
    fill(page, "hello")
    with page.expect_request(CHAT) as caught:
        page.get_by_role("button", name="Answer", exact=True).click()
    sent = json.loads(caught.value.post_data or "")
    assert (sent["temperature"], sent["max_tokens"]) == (0.75, 8)
    wait_for_answer(page)


def test_a_key_that_may_not_list_users_chooses_one_that_exists(
    start_server: Callable[..., str],
    page_library: Path,
    tmp_path: Path,
    open_page: Callable[..., Page],
    complaints: list[str],
) -> None:
    database = tmp_path / "users.db"
    kept = open_database(str(database))
    key = issue_key(kept, role="user")
    kept.close()
    address = start_server(page_library, database=database)
    name = ""
    for _ in range(2):
        page = open_page(address)
        page.get_by_label("Key", exact=True).fill(key)
        page.get_by_role("button", name="Use this key").click()
        page.wait_for_selector("#main[aria-busy=false]")
        if not name:
            name = create_user(page)
            continue
        page.get_by_role("button", name="Choose a user").first.click()
        expect(page.get_by_role("dialog")).to_contain_text("may not list users")
        page.get_by_label("Name of a new user").fill(name)
        page.get_by_role("button", name="Create").click()
        expect(page.locator("#user-name")).to_have_text(name)
    complaints.clear()


def test_a_busy_server_costs_no_conversation(page: Page, complaints: list[str]) -> None:
    name = create_user(page)
    ask(page, "hello")
    page.route("**/v1/users/*", lambda route: route.fulfill(status=503, json=BUSY), times=1)
    page.reload()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#user-name")).to_have_text(name)
    expect(page.locator(".said")).to_contain_text("hello")
    complaints.clear()


def test_what_was_said_stays_where_what_was_learned_goes(page: Page) -> None:
    create_user(page)
    ask(page, "hello")
    page.get_by_role("button", name="Forget what was learned").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.locator("#news")).to_contain_text("Forgotten")
    expect(page.locator(".turn")).to_have_count(1)


def test_two_answers_are_compared_where_the_context_is_full(
    page: Page, complaints: list[str]
) -> None:
    create_user(page)
    page.locator(".settings summary").click()
    page.get_by_label("Tokens at most").fill("120")  # of the tiny model's context of 256
    ask(page, "hello")
    fill(page, "and now? " * 3)
    page.get_by_role("button", name="Compare two").click()
    expect(page.locator(".choice")).to_have_count(2)
    expect(page.locator(".forgotten")).to_be_attached()
    complaints.clear()


def test_who_wrote_what_shows_characters_of_several_tokens(page: Page) -> None:
    tokens = [
        {"text": text, "log_prob": -1.0, "wrote": {"base": 1.0}}
        for text in ("Great", " \ufffd", "\ufffd", "\ufffd", " done")
    ]
    last = {
        "choices": [
            {"index": 0, "delta": {}, "finish_reason": "stop", "palate": {"tokens": tokens}}
        ]
    }
    page.route(CHAT, lambda route: route.fulfill(**stream(piece("Great \U0001f389 done"), last)))
    fill(page, "hello")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator(".heat")).to_have_text("Great \U0001f389 done")
    expect(page.locator(".heat .token")).to_have_count(3)


def test_copied_is_said_only_where_it_was(page: Page) -> None:
    ask(page, "hello")
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    page.get_by_role("button", name="Copy the answer").click()
    expect(page.locator("body")).to_contain_text("nothing be copied here")
