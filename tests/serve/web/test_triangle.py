"""The triangle: its arithmetic against the server's and numpy's, and its keys."""

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from page_steps import drag_to, shares

pytestmark = pytest.mark.browser

CALL = "async ([name, ...given]) => (await import('/js/simplex.js'))[name](...given)"


def call(page: Page, name: str, *given: object) -> object:
    """One of the page's own functions, on plain data."""
    return page.evaluate(CALL, [name, *given])


def inside(polygon: np.ndarray, point: np.ndarray) -> bool:
    """Whether a point lies in a convex polygon, both as shares; the last two span the plane."""
    if len(polygon) == 0:
        return False
    edges = np.roll(polygon, -1, axis=0) - polygon
    away = point - polygon
    turns = edges[:, 1] * away[:, 2] - edges[:, 2] * away[:, 1]
    return bool(np.all(turns >= 0) or np.all(turns <= 0))


def test_regions_are_where_a_member_is_worth_most(page: Page) -> None:
    generator = np.random.default_rng(0)
    for n_members in (1, 2, 3, 6):
        worth = generator.normal(size=(n_members, 3))
        polygons = [np.array(p) for p in call(page, "regions", worth.tolist())]
        points = generator.dirichlet(np.ones(3), size=300)
        for point in points:
            best = int((worth @ point).argmax())
            assert [inside(p, point) for p in polygons] == [k == best for k in range(n_members)]


def test_the_areas_of_regions_sum_to_the_triangle(page: Page) -> None:
    worth = np.random.default_rng(1).normal(size=(5, 3)).tolist()
    areas = [call(page, "areaOf", p) for p in call(page, "regions", worth) if p]
    assert sum(areas) == pytest.approx(1.0)


def test_equal_members_do_not_share_a_region(page: Page) -> None:
    first, second = call(page, "regions", [[1, 2, 3], [1, 2, 3]])
    assert len(first) == 3
    assert second == []


def test_pixels_and_shares_are_each_others_inverse(page: Page) -> None:
    for point in np.random.default_rng(2).dirichlet(np.ones(3), size=20).tolist():
        pixel = call(page, "pixelOf", point)
        assert call(page, "sharesOf", pixel) == pytest.approx(point)


def test_a_pixel_outside_gives_the_closest_point_of_the_triangle(page: Page) -> None:
    assert call(page, "sharesOf", [200, -500]) == pytest.approx([1, 0, 0])
    assert call(page, "sharesOf", [200, 900]) == pytest.approx([0, 0.5, 0.5])


def test_a_share_that_is_set_scales_the_others(page: Page) -> None:
    assert call(page, "withShare", [0.2, 0.6, 0.2], 0, 0.6) == pytest.approx([0.6, 0.3, 0.1])
    assert call(page, "withShare", [1, 0, 0], 0, 0.4) == pytest.approx([0.4, 0.3, 0.3])


def test_rounded_shares_are_thousandths_that_sum_to_one(page: Page) -> None:
    assert call(page, "rounded", [1 / 3, 1 / 3, 1 / 3]) == [0.334, 0.333, 0.333]
    for point in np.random.default_rng(3).dirichlet(np.ones(7), size=50).tolist():
        found = call(page, "rounded", point)
        assert sum(round(1000 * share) for share in found) == 1000
        assert found == pytest.approx(point, abs=1.001e-3)


def test_the_painted_member_is_the_one_the_server_names(page: Page) -> None:
    """Regions are drawn from the members' values; routing is the server's own."""
    names = ["kind", "short", "plain"]
    drawn = page.evaluate(
        """async () => {
          const face = await import('/js/face.js');
          const {regions} = await import('/js/simplex.js');
          const members = face.memberCorners();
          return [members.map((m) => m.name), regions(members.map((m) => m.corners))];
        }"""
    )
    polygons = dict(zip(drawn[0], [np.array(p) for p in drawn[1]], strict=True))
    points = np.random.default_rng(4).dirichlet(np.ones(3), size=200)
    body = [dict(zip(names, point.tolist(), strict=True)) for point in points]
    served = page.evaluate(
        """(preferences) => fetch('v1/regret', {method: 'POST', body: JSON.stringify({preferences}),
             headers: {'Content-Type': 'application/json'}}).then((r) => r.json())""",
        body,
    )
    for point, answer in zip(points, served["points"], strict=True):
        assert inside(polygons[answer["member"]], point)


def test_the_certified_loss_of_the_point_is_the_servers(page: Page) -> None:
    page.locator("#handle").focus()
    page.keyboard.press("3")  # all for `plain`, which no member was made for
    facts = page.locator(".fact-value")
    # Lower bounds of the members are .872 - .55 and so on; the server's certificate says .505.
    expect(facts.nth(1)).to_have_text("0.505")
    expect(page.locator(".layer-dots circle")).not_to_have_count(0)
    expect(page.locator(".worst-mark")).to_have_count(1)


def test_the_loss_under_the_cursor_is_shown_beside_it(page: Page) -> None:
    expect(page.locator(".fact-value").first).to_have_text("kind")
    frame = page.locator("svg.simplex").bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + 0.12 * frame["width"], frame["y"] + 0.87 * frame["height"])
    tip = page.locator(".tip")
    expect(tip).to_contain_text("by short")
    expect(tip).to_contain_text("loss ≤ 0.0")


def test_arrow_keys_move_the_point_towards_the_corners(page: Page) -> None:
    handle = page.locator("#handle")
    handle.focus()
    start = shares(page)
    page.keyboard.press("ArrowUp")
    up = shares(page)
    assert up["kind"] > start["kind"]
    page.keyboard.press("Shift+ArrowLeft")
    assert shares(page)["short"] >= up["short"] + 9
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Home")
    assert shares(page) == {"kind": 33, "short": 33, "plain": 33}
    page.keyboard.press("2")
    assert shares(page) == {"kind": 0, "short": 100, "plain": 0}
    assert handle.get_attribute("aria-valuetext") == "short 100\u202f%"


def test_the_point_follows_the_mouse(page: Page) -> None:
    drag_to(page, 0.5, 0.09)
    assert shares(page)["kind"] >= 98
    drag_to(page, 0.95, 0.9)
    assert shares(page)["plain"] >= 98
