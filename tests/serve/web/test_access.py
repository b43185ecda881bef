"""Nobody is left out: axe-core's rules, keys only, narrow screens, no motion."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from page_steps import ask, create_user

pytestmark = pytest.mark.browser

Open = Callable[..., Page]


def faults(page: Page) -> list[str]:
    """Serious and critical violations of all of axe's rules but the experimental ones."""
    found: list[dict[str, Any]] = (
        Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    )
    return [
        f"{fault['id']}: {node['html'][:160]} {node['failureSummary'][:300]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_no_serious_fault_in_any_state(
    address: str, open_page: Open, scheme: str, width: int
) -> None:
    page = open_page(address, width=width, scheme=scheme, reduced_motion="reduce")
    page.wait_for_selector("#main[aria-busy=false]")
    states = {"empty": faults(page)}
    page.get_by_role("button", name="Choose a user").first.click()
    states["dialog"] = faults(page)
    page.get_by_role("button", name="Close", exact=True).click()
    create_user(page)
    page.locator(".settings summary").click()
    page.get_by_label("Method").select_option("mixture")
    page.locator("#explain").check()
    ask(page, "hello")
    page.locator(".star").nth(2).click()
    expect(page.locator(".feedback")).to_contain_text("Learned.")
    states["answer"] = faults(page)
    page.get_by_role("button", name="Compare two").click()
    page.get_by_role("button", name="A is better").wait_for()
    states["question"] = faults(page)
    page.get_by_role("button", name="A is better").click()
    page.get_by_role("button", name="Next two").wait_for()
    states["verdict"] = faults(page)
    page.get_by_role("button", name="Erase me").click()
    states["erase"] = faults(page)
    page.get_by_role("button", name="Erase everything").click()
    page.locator("dl.receipt").wait_for()
    states["receipt"] = faults(page)
    page.get_by_role("button", name="Done").click()
    ask(page, "hello")
    ask(page, "and now?")
    states["conversation"] = faults(page)
    page.get_by_role("link", name="Library").click()
    page.get_by_text("Model card").first.click()
    page.get_by_role("button", name="Show an answer of base").click()
    expect(page.locator("#library-methods table")).to_be_visible()
    states["library"] = faults(page)
    assert not any(states.values()), states


def test_axe_would_find_a_fault_if_there_were_one(page: Page) -> None:
    page.evaluate("document.querySelector('#prompt').labels[0].remove()")
    page.evaluate("document.querySelector('#prompt').removeAttribute('placeholder')")
    assert any(fault.startswith("label:") for fault in faults(page))


def test_the_page_is_used_with_keys_alone(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.locator(".answer:not(.streaming) .timing")).to_contain_text("tokens")
    seen = set()
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"handle", "user-button", "theme-button", "share-0"} <= seen


def test_what_has_the_focus_can_be_seen(page: Page) -> None:
    for target in ("#prompt", "#answer-button", "#user-button"):
        page.locator(target).focus()
        page.keyboard.press("Shift")  # the last input was a key
        width = page.evaluate(
            "t => parseFloat(getComputedStyle(document.querySelector(t)).outlineWidth)", target
        )
        assert width >= 2, target


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen(address: str, open_page: Open, width: int) -> None:
    page = open_page(address, width=width)
    page.wait_for_selector("#main[aria-busy=false]")
    create_user(page)
    ask(page, "hello")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="Library").click()
    expect(page.locator("table.members")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_nothing_moves_where_motion_is_unwanted(address: str, open_page: Open) -> None:
    page = open_page(address, reduced_motion="reduce")
    page.wait_for_selector("#main[aria-busy=false]")
    create_user(page)
    moving = page.evaluate(
        """[...document.querySelectorAll('*')].filter((node) => {
          const style = getComputedStyle(node);
          const lasts = style.transitionDuration.split(', ').some((t) => parseFloat(t) > 0);
          return lasts || style.animationName !== 'none';
        }).length"""
    )
    assert moving == 0


def test_the_theme_follows_the_system_until_it_is_chosen(address: str, open_page: Open) -> None:
    page = open_page(address, scheme="dark")
    page.wait_for_selector("#main[aria-busy=false]")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Theme: as the system").click()
    page.get_by_role("button", name="Theme: light").wait_for()
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    assert page.evaluate(ground) == light
