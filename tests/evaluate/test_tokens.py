"""Who wrote which token: the scale stands beside the rows, never on them."""

import numpy as np
import pytest

from palate.evaluate.plots.charts import PER_ROW, token_heat


@pytest.mark.parametrize("n_tokens", [5, PER_ROW, PER_ROW + 24, 3 * PER_ROW])
def test_neither_scale_nor_rows_overlap(n_tokens):
    shares = np.full((n_tokens, 3), 1 / 3)
    tokens = [f"token{k}" for k in range(n_tokens)]
    figure = token_heat(shares, tokens=tokens, experts=["elementary", "concise", "friendly"])
    figure.draw_without_rendering()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    n_rows = -(-n_tokens // PER_ROW)
    assert len(boxes) == n_rows + 1
    for place, box in enumerate(boxes):
        for other in boxes[place + 1 :]:
            is_beside = box.x1 <= other.x0 or other.x1 <= box.x0
            is_below = box.y1 <= other.y0 or other.y1 <= box.y0
            assert is_beside or is_below
