"""What the page says when a key is missing, the server is busy, or the line is dead."""

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from page_steps import ask, create_user
from palate.store.database import open_database
from palate.store.keys import issue_key

pytestmark = pytest.mark.browser

Open = Callable[..., Page]
Start = Callable[..., str]


def test_a_key_is_asked_for_and_kept_in_this_tab_only(
    start_server: Start, page_library: Path, tmp_path: Path, open_page: Open
) -> None:
    database = tmp_path / "users.db"
    kept = open_database(str(database))
    key = issue_key(kept)
    kept.close()
    page = open_page(start_server(page_library, database=database))
    dialog = page.locator("#key-dialog")
    expect(dialog).to_be_visible()
    page.get_by_label("Key", exact=True).fill("pk_wrong")
    page.get_by_role("button", name="Use this key").click()
    expect(page.locator("#notices")).to_contain_text("A key is needed")
    expect(dialog).to_be_visible()
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()
    page.wait_for_selector("#main[aria-busy=false]")
    expect(page.locator("#notices")).to_be_empty()
    create_user(page)
    ask(page, "hello")
    assert page.evaluate("sessionStorage.getItem('palate.key')") == key
    assert page.evaluate("JSON.stringify(localStorage)") == "{}"
    page.reload()
    page.wait_for_selector("#main[aria-busy=false]")


def test_too_many_requests_are_counted_down(
    start_server: Start, page_library: Path, open_page: Open
) -> None:
    options = ("--set", "requests_per_minute=1", "--set", "burst=4")
    page = open_page(start_server(page_library, *options))
    page.wait_for_selector("#main[aria-busy=false]")
    page.get_by_label("Your question").fill("hello")
    # without keys the rate is ten times as high
    page.evaluate("Promise.all(Array.from({length: 60}, () => fetch('v1/library')))")
    page.wait_for_timeout(300)
    page.get_by_role("button", name="Answer", exact=True).click()
    notice = page.locator("#notices")
    expect(notice).to_contain_text("Too many requests")
    expect(notice.get_by_role("button", name="Try again in")).to_be_disabled()
    again = notice.get_by_role("button", name="Try again", exact=True)
    again.click()
    expect(page.locator(".answer:not(.streaming) .timing")).to_contain_text("tokens")


def test_a_dead_line_is_said_and_mended_by_itself(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.wait_for_selector("#main[aria-busy=false]")
    page.get_by_label("Your question").fill("hello")
    page.context.set_offline(True)
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator("#notices")).to_contain_text("No connection")
    page.context.set_offline(False)
    expect(page.locator(".answer:not(.streaming) .timing")).to_contain_text("tokens")
    expect(page.locator("#notices")).to_be_empty()


def test_a_refused_name_is_explained_where_it_was_typed(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.wait_for_selector("#main[aria-busy=false]")
    name = create_user(page)
    page.locator("#user-button").click()
    field = page.get_by_label("Name of a new user")
    field.fill(name)
    with page.expect_response("**/v1/users"):
        page.get_by_role("button", name="Create").click()
    expect(page.locator(".field-error")).to_contain_text("exists")


STOP_AT_THE_FIRST_WORD = """() => {
  const button = document.getElementById("answer-button");
  const result = document.getElementById("result");
  new MutationObserver(() => {
    const text = result.querySelector(".answer.streaming .answer-text");
    if (text?.textContent && button.textContent === "Stop") button.click();
  }).observe(result, {subtree: true, childList: true, characterData: true});
}"""


SLOW = {"offline": False, "latency": 0, "downloadThroughput": 4000, "uploadThroughput": -1}


def test_an_answer_can_be_stopped(page: Page) -> None:
    # the tiny model is done before a browser has read the first word, over a line that is not slow
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", SLOW)
    page.evaluate(STOP_AT_THE_FIRST_WORD)
    page.locator(".settings summary").click()
    page.get_by_label("Tokens at most").fill("200")
    page.get_by_label("Your question").fill("hello")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator(".timing")).to_have_text("stopped")
    assert len(page.locator(".answer-text").inner_text()) < 100
    expect(page.locator("#answer-button")).to_have_text("Answer")
    expect(page.locator("#notices")).to_be_empty()


def test_a_library_without_a_portfolio_says_so(
    start_server: Start, tiny_library: Path, open_page: Open
) -> None:
    page = open_page(start_server(tiny_library))
    page.wait_for_selector("#main[aria-busy=false]")
    expect(page.locator("#reading")).to_contain_text("This library has no portfolio")
    assert page.locator(".region").count() == 0
    ask(page, "hello")
