"""A conversation: what the model reads, what a new one forgets, words, and what methods cost."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect

from page_steps import ask, create_user, drag_to, wait_for_answer

pytestmark = pytest.mark.browser

Json = dict[str, Any]
CHAT = "**/v1/chat/completions"


def sent_by(page: Page, act: Callable[[], None]) -> Json:
    """The request for an answer that an act of the user causes."""
    with page.expect_request(CHAT) as caught:
        act()
    return body_of(caught.value)


@pytest.fixture(autouse=True)
def _short_answers(page: Page) -> None:
    """Several turns fit into the tiny model's context."""
    page.locator(".settings summary").click()
    page.get_by_label("Tokens at most").fill("16")


def body_of(request: Request) -> Json:
    return json.loads(request.post_data or "")


def words(text: str) -> list[str]:
    """What is sent of a text: a random model writes null characters, which the page leaves out."""
    return text.replace("\0", "").split()


def test_the_second_answer_reads_the_first_question_and_answer(page: Page) -> None:
    ask(page, "hello")
    first = page.locator(".answer .answer-text").inner_text()
    sent = sent_by(page, lambda: ask(page, "and now?"))
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert sent["messages"][0]["content"] == "hello"
    assert words(sent["messages"][1]["content"]) == words(first)
    assert sent["messages"][2]["content"] == "and now?"
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator(".said").first).to_contain_text("hello")
    expect(page.locator("#prompt")).to_have_value("")


def test_dragging_answers_the_last_question_only(page: Page) -> None:
    ask(page, "hello")
    ask(page, "and now?")
    sent = sent_by(page, lambda: drag_to(page, 0.15, 0.85))
    assert len(sent["messages"]) == 3
    assert sent["messages"][-1]["content"] == "and now?"
    wait_for_answer(page)
    expect(page.locator(".turn")).to_have_count(2)


def test_a_new_chat_forgets_what_was_said(page: Page) -> None:
    ask(page, "hello")
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#prompt")).to_be_focused()
    sent = sent_by(page, lambda: ask(page, "and now?"))
    assert [message["content"] for message in sent["messages"]] == ["and now?"]


def test_another_user_does_not_see_what_was_said(page: Page) -> None:
    ask(page, "hello")
    create_user(page)
    expect(page.locator(".turn")).to_have_count(0)


def test_a_conversation_goes_on_after_a_reload_until_its_user_is_erased(page: Page) -> None:
    name = create_user(page)
    ask(page, "hello")
    first = page.locator(".answer .answer-text").inner_text()
    page.reload()
    expect(page.locator(".said")).to_contain_text("hello")
    assert words(page.locator(".answer .answer-text").inner_text()) == words(first)
    page.locator(".settings summary").click()
    page.get_by_label("Tokens at most").fill("16")
    sent = sent_by(page, lambda: ask(page, "and now?"))
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert words(sent["messages"][1]["content"]) == words(first)
    page.get_by_role("button", name="Erase me").click()
    page.get_by_role("button", name="Erase everything").click()
    expect(page.get_by_role("dialog")).to_contain_text("Erased")
    kept = page.evaluate("JSON.stringify(sessionStorage)")
    assert "hello" not in kept
    assert name not in kept


def test_a_new_chat_is_new_after_a_reload(page: Page) -> None:
    ask(page, "hello")
    page.get_by_role("button", name="New chat").click()
    page.reload()
    expect(page.locator("#user-name")).to_have_text("Choose a user")
    expect(page.locator(".turn")).to_have_count(0)


def test_the_answer_that_was_preferred_goes_on_with_the_conversation(page: Page) -> None:
    create_user(page)
    page.get_by_label("Your question").fill("hello")
    page.get_by_role("button", name="Compare two").click()
    page.get_by_role("button", name="B is better").click()
    page.get_by_role("button", name="Next two").wait_for()
    preferred = page.locator(".choice.preferred .answer-text").inner_text()
    sent = sent_by(page, lambda: ask(page, "and now?"))
    assert words(sent["messages"][1]["content"]) == words(preferred)
    expect(page.locator(".choice:visible")).to_have_count(1)


def test_a_full_context_lets_the_oldest_turn_go_and_says_so(
    page: Page, complaints: list[str]
) -> None:
    page.get_by_label("Tokens at most").fill("120")  # of the tiny model's context of 256
    ask(page, "hello")
    sent: list[Json] = []
    page.on(
        "request", lambda request: sent.append(body_of(request)) if "chat" in request.url else None
    )
    ask(page, "and now?")
    assert [len(body["messages"]) for body in sent] == [3, 1]
    expect(page.locator(".forgotten")).to_contain_text("no longer reads")
    expect(page.locator("#notices")).to_be_empty()
    assert all("400" in text for text in complaints)  # the browser's own line for the refusal
    complaints.clear()


def test_words_alone_are_followed_once_there_are_any(page: Page) -> None:
    words = page.get_by_role("radio", name="My words")
    expect(words).to_be_disabled()
    page.get_by_label("In your own words").fill("Be brief.")
    words.check()
    sent = sent_by(page, lambda: ask(page, "hello"))
    assert sent["palate"]["instruction"] == "Be brief."
    assert "preference" not in sent["palate"]
    expect(page.locator(".answer .badge").first).to_have_text("prompted-soup")
    page.get_by_label("In your own words").fill("")
    expect(page.get_by_role("radio", name="My point")).to_be_checked()


GAIN = {"estimate": 0.2, "low": -0.1, "high": 0.5}
ROWS = [
    {"method": method, "decides": decides, "n_candidates": 1, "n_passes": 1.0}
    for method, decides in (("auto", "soup"), ("soup", "soup"), ("mixture", "mixture"))
]


def test_methods_are_shown_with_their_passes_and_chosen_from_the_table(page: Page) -> None:
    table = page.locator("#methods")
    expect(table.locator("tr[data-method=output-soup] .passes")).to_have_text("3 passes")
    expect(table.locator("tr[data-method=soup] .gain")).to_have_text("not measured")
    expect(table.locator("tr.taken th")).to_contain_text("Prompted soup")
    table.get_by_role("button", name="Mixture").click()
    expect(page.get_by_label("Method")).to_have_value("mixture")
    expect(table.get_by_role("button", name="Mixture")).to_be_focused()
    table.get_by_role("button", name="Mixture").click()
    expect(page.get_by_label("Method")).to_have_value("auto")


def test_what_was_measured_is_shown_with_its_interval(page: Page) -> None:
    points = [[{**row, "predicted_utility": GAIN} for row in ROWS]]
    measured = {"points": points, "n_prompts": 72, "self_judged": ["short"]}
    page.route("**/v1/methods", lambda route: route.fulfill(json=measured))
    page.locator("#handle").focus()
    page.keyboard.press("2")
    row = page.locator("#methods tr[data-method=soup]")
    expect(row).to_contain_text("auto takes it")
    expect(row.locator(".numbers")).to_have_text("+0.20 \u22120.10 to 0.50")
    box, bar = (row.locator(name).bounding_box() for name in (".interval", ".bar"))
    assert box is not None
    assert bar is not None
    assert box["width"] == pytest.approx(bar["width"], abs=1.5)  # it reaches from end to end
    expect(page.locator("#methods")).to_contain_text("72 prompts")
    expect(page.locator("#methods")).to_contain_text("but for short")
    expect(page.locator("#methods")).to_contain_text("For short 100")
