"""The library's page: experts with cards and sample answers, the portfolio, costs."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from page_steps import ask

pytestmark = pytest.mark.browser


def test_every_expert_has_its_size_its_card_and_an_answer_on_request(
    page: Page, page_library: Path
) -> None:
    page.get_by_role("link", name="Library").click()
    expect(page.locator("#main")).to_be_hidden()
    names = ["kind", "short", "plain"]
    assert page.locator("article.expert h3").all_inner_texts() == [*names, "base"]
    expert = page.locator("article.expert[data-name=short]")
    folder = page_library / "experts/short"
    n_bytes = sum(path.stat().st_size for path in folder.iterdir())
    expect(expert.locator("dd").nth(1)).to_have_text(f"{round(n_bytes / 1000)}\u202fkB")
    expert.get_by_text("Model card").click()
    expect(expert.locator("pre")).to_contain_text("short")
    with page.expect_request("**/v1/chat/completions") as caught:
        expert.get_by_role("button", name="Show an answer").click()
    sent = json.loads(caught.value.post_data or "")
    assert sent["palate"] == {"method": "soup", "coefficients": {"short": 1}}
    assert sent["messages"] == [{"role": "user", "content": "Why is the sky blue?"}]
    expect(expert.get_by_role("button", name="Show an answer")).to_be_enabled()
    assert len(expert.locator(".sample-answer").inner_text()) > 5


def test_the_portfolio_shows_members_worth_and_the_certificate(page: Page) -> None:
    page.get_by_role("link", name="Library").click()
    rows = page.locator("table.members tbody tr")
    assert rows.locator("th").all_inner_texts() == ["kind", "short"]
    expect(page.locator("#portfolio dl")).to_contain_text("0.505 reward")
    expect(page.locator("#portfolio dl")).to_contain_text("plain 100")
    assert page.locator(".assumptions li").count() > 1
    expect(page.locator("#library-methods tr[data-method=soup]")).to_contain_text("1 pass")


def test_the_library_is_reached_with_keys_and_the_conversation_is_still_there(page: Page) -> None:
    ask(page, "hello")
    page.locator("#views a").last.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#library")).to_be_visible()
    seen = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.id"))
    assert {"Show an answer of kind", "Show an answer of base", "sample-question"} <= seen
    assert "prompt" not in seen  # what is hidden takes no focus
    page.go_back()
    expect(page.locator(".turn")).to_have_count(1)
    expect(page.get_by_role("link", name="Chat")).to_have_attribute("aria-current", "page")
