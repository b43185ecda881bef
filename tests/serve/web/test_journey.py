"""What a user does on the page, in real Chromium against a real server."""

import itertools
import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from page_steps import ask, believed, create_user, drag_to, shares, wait_for_answer

pytestmark = pytest.mark.browser


def test_a_user_is_created_drags_streams_compares_three_times_and_is_erased(page: Page) -> None:
    name = create_user(page)
    assert believed(page) == {"kind": "0.00", "short": "0.00", "plain": "0.00"}

    drag_to(page, 0.5, 0.2)  # near the top corner
    assert shares(page)["kind"] > 70
    page.get_by_label("Method").select_option("portfolio")
    ask(page, "hello")
    expect(page.locator(".answer .badge").first).to_have_text("portfolio")
    expect(page.locator(".reason")).to_contain_text("Member 'kind'")
    page.get_by_label("Method").select_option("auto")
    expect(page.locator(".answer .badge").first).to_have_text("prompted-soup")
    wait_for_answer(page)

    seen = [believed(page)]
    page.get_by_role("button", name="Compare two").click()
    for verdict in ("A is better", "B is better", "As good as each other"):
        expect(page.locator(".question")).to_contain_text("two answers can tell 0.693 at most")
        page.get_by_role("button", name=verdict).click()
        page.get_by_role("button", name="Next two").wait_for()
        is_used = len(seen) == 3  # from the third verdict on
        soup = page.locator(".soup")
        expect(soup).to_contain_text("Served as" if is_used else "Would be served as")
        seen.append(believed(page))
        if verdict != "As good as each other":
            page.get_by_role("button", name="Next two").click()
    assert all(before != after for before, after in itertools.pairwise(seen))
    expect(page.locator(".learning")).to_have_text("3 verdicts, applied: answers use it.")
    assert page.locator(".interval.before:visible").count() == 3  # outlines of the belief before

    page.get_by_role("button", name="Erase me").click()
    page.get_by_role("button", name="Erase everything").click()
    receipt = page.locator("dl.receipt")
    expect(receipt).to_contain_text("Verdicts")
    assert name not in receipt.inner_text()
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#user-name")).to_have_text("Choose a user")
    status = page.evaluate("name => fetch(`v1/users?limit=200`).then(r => r.text())", name)
    assert name not in status


def test_the_answer_streams_piece_by_piece(page: Page) -> None:
    page.evaluate(
        """() => {
          window.lengths = new Set();
          new MutationObserver(() => {
            const text = document.querySelector(".answer.streaming .answer-text");
            if (text) window.lengths.add(text.textContent.length);
          }).observe(document.getElementById("result"),
                     {subtree: true, childList: true, characterData: true});
        }"""
    )
    ask(page, "hello")
    assert page.evaluate("window.lengths.size") >= 10


def test_dragging_answers_again_while_it_is_live(page: Page) -> None:
    page.get_by_label("Method").select_option("portfolio")
    ask(page, "hello")
    with page.expect_request("**/v1/chat/completions") as caught:
        drag_to(page, 0.15, 0.85)
    sent = json.loads(caught.value.post_data or "")
    assert sent["palate"]["preference"]["short"] > 0.7
    wait_for_answer(page)
    expect(page.locator(".reason")).to_contain_text("Member 'short'")


def test_nothing_is_asked_by_dragging_when_it_is_not_live(page: Page) -> None:
    ask(page, "hello")
    page.locator("#live").uncheck()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    drag_to(page, 0.15, 0.85)
    page.wait_for_timeout(800)
    assert not [url for url in asked if url.endswith("completions")]


@pytest.mark.parametrize(
    ("label", "method"),
    [
        ("Base", "base"),
        ("Portfolio", "portfolio"),
        ("Soup", "soup"),
        ("Prompted soup", "prompted-soup"),
        ("Output soup", "output-soup"),
        ("Implicit soup", "implicit-soup"),
        ("Mixture", "mixture"),
    ],
)
def test_each_method_answers_and_says_why(page: Page, label: str, method: str) -> None:
    page.locator("#live").uncheck()
    page.get_by_label("Method").select_option(label=label)
    expect(page.locator("#method-about")).not_to_be_empty()
    ask(page, "hello")
    expect(page.locator(".answer .badge").first).to_have_text(method)
    assert len(page.locator(".reason p").inner_text()) > 10


def test_own_words_and_best_of_n_are_sent_and_reported(page: Page) -> None:
    page.locator(".settings summary").click()
    page.get_by_label("In your own words").fill("Be brief.")
    page.get_by_label("Best of").fill("3")
    page.get_by_label("Method").select_option("prompt")
    page.route("**/v1/chat/completions", with_given_coefficients)
    with page.expect_request("**/v1/chat/completions") as caught:
        ask(page, "hello")
    sent = json.loads(caught.value.post_data or "")["palate"]
    assert (sent["instruction"], sent["n_candidates"], sent["method"]) == ("Be brief.", 3, "prompt")
    assert "strength" not in sent  # the library's own
    expect(page.locator(".answer-head")).to_contain_text("best of 3, ahead by")
    expect(page.locator(".reason")).to_contain_text("'Be brief.'")


def with_given_coefficients(route: Route) -> None:
    """The request with coefficients, which rank candidates where a library has no rewards."""
    body = json.loads(route.request.post_data or "")
    body["palate"]["coefficients"] = {"kind": 1.0}
    del body["palate"]["preference"]
    route.continue_(post_data=json.dumps(body))


def test_the_heat_map_names_the_writers_of_every_token(page: Page) -> None:
    page.get_by_label("Method").select_option("mixture")
    page.locator("#explain").check()
    ask(page, "hello")
    tokens = page.locator(".heat .token")
    assert tokens.count() > 20
    tokens.first.focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(page.locator(".heat-readout")).to_contain_text("probability")
    legend = page.locator(".heat-legend li").all_inner_texts()
    total = sum(int(line.split()[-2]) for line in legend)
    assert 97 <= total <= 103  # shares sum to one, rounded one by one


def test_thumbs_and_stars_are_learned_from(page: Page) -> None:
    create_user(page)
    ask(page, "hello")
    page.get_by_role("button", name="A good answer").click()
    expect(page.locator(".feedback")).to_contain_text("Learned.")
    expect(page.locator(".learning")).to_contain_text("1 verdict,")
    page.locator(".star").nth(3).click()
    expect(page.locator(".star.lit")).to_have_count(4)


def test_a_stated_preference_is_stored_and_there_again_after_a_reload(page: Page) -> None:
    name = create_user(page)
    drag_to(page, 0.5, 0.2)
    stated = shares(page)
    page.get_by_role("button", name=f"Store as {name}'s preference").click()
    expect(page.get_by_role("button", name=f"Stored as {name}'s preference")).to_be_disabled()
    page.reload()
    expect(page.locator("#user-name")).to_have_text(name)
    expect(page.locator("table.bars")).to_be_visible()
    assert shares(page) == stated


def test_what_was_learned_is_forgotten_on_request(page: Page) -> None:
    create_user(page)
    page.get_by_label("Your question").fill("hello")
    page.get_by_role("button", name="Compare two").click()
    page.get_by_role("button", name="A is better").click()
    expect(page.locator(".learning")).to_contain_text("1 verdict,")
    page.get_by_role("button", name="Forget what was learned").click()
    page.get_by_role("button", name="Forget it").click()
    expect(page.locator(".learning")).to_contain_text("0 verdicts")
    assert set(believed(page).values()) == {"0.00"}


def test_all_that_is_kept_can_be_taken_away_as_a_file(page: Page, tmp_path: Path) -> None:
    name = create_user(page)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Export my data").click()
    file = tmp_path / "export.json"
    caught.value.save_as(file)
    assert name in file.read_text()
    assert isinstance(json.loads(file.read_text()), dict)
