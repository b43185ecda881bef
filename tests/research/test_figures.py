"""The plot of losses against sizes: what is drawn is what was given."""

import numpy as np

from research.figures import gap_curves, save_png


def test_every_way_is_one_line_through_its_estimates_with_its_intervals(tmp_path):
    curves = {
        "uniform": [(0.3, 0.2, 0.4), (0.2, 0.1, 0.3)],
        "PALM": [(0.25, 0.2, 0.3), (0.1, 0.05, 0.2)],
    }
    figure = gap_curves(curves, sizes=[1, 2], y_label="lost", title="gap")
    axes = figure.axes[0]
    drawn = [container.lines for container in axes.containers]
    for (line, _, bars), intervals in zip(drawn, curves.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), [value for value, _, _ in intervals])
        ends = [segment[:, 1].tolist() for segment in bars[0].get_segments()]
        np.testing.assert_allclose(ends, [[low, high] for _, low, high in intervals])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["uniform", "PALM"]
    assert axes.get_ylim()[0] == 0.0
    save_png(figure, tmp_path / "deep" / "gap.png")
    assert (tmp_path / "deep" / "gap.png").read_bytes().startswith(b"\x89PNG")
