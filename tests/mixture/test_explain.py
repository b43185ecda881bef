"""Explanations: Bayes' rule by hand, and pages that no text can break out of."""

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from palate.core.errors import InvalidInputError
from palate.mixture.explain import Explanation, explain, render_page

EVIL = "<script>alert('x')</script>\" & 'quotes'"


def story(**changes) -> Explanation:
    parts = {
        "prompt": EVIL,
        "experts": ("warm", "<b>dry</b>"),
        "texts": ["Hello", EVIL],
        "shares": np.array([[0.25, 0.75], [1.0, 0.0]]),
        "expert_log_probs": np.log([[0.6, 0.2], [0.5, 0.9]]),
    }
    return explain(**{**parts, **changes})


class Reader(HTMLParser):
    """Collects tags, text and titles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.titles: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.titles += [value for key, value in attrs if key == "title"]

    def handle_data(self, data):
        self.text += data


def test_responsibilities_follow_bayes_rule() -> None:
    first, second = story().tokens
    total = 0.25 * 0.6 + 0.75 * 0.2
    assert np.allclose(first.responsibilities, [0.25 * 0.6 / total, 0.75 * 0.2 / total])
    assert first.log_prob == pytest.approx(np.log(total))
    assert second.responsibilities == (1.0, 0.0)
    assert story().to_json()["mean_responsibilities"]["warm"] == pytest.approx(0.75)


def test_responsibilities_meet_the_exact_cases(mope_cases: dict[str, Any]) -> None:
    for case in mope_cases["cases"]:
        probs = np.array(mope_cases["expert_probs"])[:, case["token"]]
        (token,) = story(
            experts=("a", "b", "c"),
            texts=["one"],
            shares=np.array([case["alpha"]]),
            expert_log_probs=np.log([probs]),
        ).tokens
        assert np.allclose(token.responsibilities, case["rho"], atol=1e-10)
        assert token.log_prob == pytest.approx(case["log_prob"], abs=1e-10)


def test_no_text_can_break_out_of_the_page() -> None:
    reader = Reader()
    reader.feed(render_page(story()))
    assert "script" not in reader.tags
    assert "b" in reader.tags  # the page's own, once
    assert reader.tags.count("b") == 1
    assert EVIL in reader.text
    assert any("<b>dry</b>: asked 75%, wrote 50%" in title for title in reader.titles)


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render_page(story(prompt="a", texts=["b", "c"]))
    assert "http" not in page
    assert "src=" not in page


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="one of each"):
        story(texts=["one"])
    with pytest.raises(InvalidInputError, match="no expert"):
        story(expert_log_probs=np.array([[0.0, 0.0], [-np.inf, 0.0]]))
