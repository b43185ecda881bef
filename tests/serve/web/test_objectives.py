"""More objectives than the triangle has corners: four, of which three are in it at a time."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from page_steps import ask, drag_to, shares

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def four(
    start_server: Callable[..., str], page_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A server whose library has a fourth objective, for which no expert was trained."""
    folder = tmp_path_factory.mktemp("four") / "library"
    shutil.copytree(page_library, folder)
    (folder / "portfolio.json").unlink()
    file = folder / "library.json"
    library = json.loads(file.read_text())
    library["objectives"].append({"name": "calm", "description": "No hurry.", "instruction": ""})
    for expert in library["experts"]:
        expert["direction"]["calm"] = 0.0
    file.write_text(json.dumps(library))
    return start_server(folder)


@pytest.fixture
def page(four: str, open_page: Callable[..., Page], complaints: list[str]) -> Iterator[Page]:
    opened = open_page(four)
    opened.wait_for_selector("#main[aria-busy=false]")
    yield opened
    assert complaints == []


def corners(page: Page) -> list[str]:
    """Names at the top, left and right corner."""
    return [text.split()[0] for text in page.locator(".corner-name").all_text_contents()]


def test_a_fourth_objective_replaces_the_one_that_is_in_the_triangle_longest(page: Page) -> None:
    assert corners(page) == ["kind", "short", "plain"]
    page.get_by_role("button", name="Put calm into the triangle").click()
    assert corners(page) == ["calm", "short", "plain"]
    page.get_by_role("button", name="Put kind into the triangle").click()
    assert corners(page) == ["calm", "kind", "plain"]
    expect(page.locator("#spoken")).to_contain_text("in place of short")


def test_dragging_leaves_the_objectives_outside_the_triangle_alone(page: Page) -> None:
    page.get_by_label("calm", exact=True).fill("40")
    drag_to(page, 0.5, 0.09)
    assert shares(page) == {"kind": 60, "short": 0, "plain": 0, "calm": 40}


def test_a_slider_takes_from_the_others_in_proportion(page: Page) -> None:
    page.get_by_label("kind", exact=True).fill("40")
    assert shares(page) == {"kind": 40, "short": 20, "plain": 20, "calm": 20}


def test_a_point_can_be_dragged_out_of_an_empty_triangle(page: Page) -> None:
    page.get_by_label("calm", exact=True).fill("100")
    drag_to(page, 0.5, 0.09)
    assert shares(page)["kind"] >= 98
    ask(page, "hello")


def test_shares_that_are_sent_sum_to_one(page: Page) -> None:
    for value in ("7", "13", "99"):
        page.get_by_label("calm", exact=True).fill(value)
        sent = page.evaluate("import('/js/state.js').then((s) => s.preference())")
        assert np.isclose(sum(sent.values()), 1.0, atol=1e-12)
