"""What somebody does on the page, in words."""

from uuid import uuid4

from playwright.sync_api import Page, expect


def create_user(page: Page) -> str:
    """A new user, chosen; their belief is on the page."""
    name = f"ana-{uuid4().hex[:8]}"
    page.get_by_role("button", name="Choose a user").first.click()
    page.get_by_label("Name of a new user").fill(name)
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#user-name")).to_have_text(name)
    expect(page.locator("table.bars")).to_be_visible()
    return name


def drag_to(page: Page, across: float, down: float) -> None:
    """Drag the point to a place of the triangle, as shares of its box."""
    box = page.locator("#handle .handle-ring").bounding_box()
    frame = page.locator("svg.simplex").bounding_box()
    assert box is not None
    assert frame is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    x, y = frame["x"] + across * frame["width"], frame["y"] + down * frame["height"]
    page.mouse.move(x, y, steps=6)
    page.mouse.up()


def ask(page: Page, prompt: str) -> None:
    """Ask, and wait for the answer's end."""
    page.get_by_label("Your question").fill(prompt)
    page.get_by_role("button", name="Answer", exact=True).click()
    wait_for_answer(page)


def wait_for_answer(page: Page) -> None:
    """Until the answer is whole."""
    expect(page.locator(".answer:not(.streaming) .timing")).to_contain_text("tokens")


def shares(page: Page) -> dict[str, int]:
    """What the sliders say, in percent."""
    rows = page.locator(".slider").all()
    return {
        row.locator("label").inner_text(): int(row.locator("input").input_value()) for row in rows
    }


def believed(page: Page) -> dict[str, str]:
    """Means on the page, by objective."""
    rows = page.locator("table.bars tbody tr").all()
    return {row.get_attribute("data-name") or "": row.locator("b").inner_text() for row in rows}
