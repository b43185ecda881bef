"""Utility against cost: the best method of every number of passes, by hand."""

import pytest

from evaluate.board import rows
from palate.evaluate.cells import pair_up
from palate.evaluate.compare import frontier
from palate.evaluate.plots.charts import Point, frontier_figure
from palate.metrics.intervals import Interval

GAINS = {
    "base": 0.0,
    "prompt": 0.1,
    "soup": 0.1,
    "output-soup": 0.05,
    "prompt+best-of-4": 0.3,
    "soup@5": 0.9,
    "bespoke": 0.9,
}


@pytest.fixture(scope="module")
def budgets():
    return frontier(pair_up(rows(tuple(GAINS), gains=GAINS), methods=tuple(GAINS)))


def test_every_number_of_passes_has_its_best_method(budgets):
    assert [(budget.passes, budget.best) for budget in budgets] == [
        (1.0, "prompt"),
        (3.0, "prompt"),
        (4.0, "prompt+best-of-4"),
    ]


def test_what_knows_less_or_costs_a_training_does_not_compete(budgets):
    named = {name for budget in budgets for name in (budget.best, *budget.others)}
    assert named == {"base", "prompt", "soup", "output-soup", "prompt+best-of-4"}


def test_the_others_are_worse_or_not_significantly_different(budgets):
    assert budgets[0].equals == ("soup",)
    assert budgets[0].worse == ("base",)
    assert set(budgets[2].worse) == {"base", "prompt", "soup", "output-soup"}
    assert budgets[2].others["prompt"].interval.estimate == pytest.approx(0.2)


def test_the_plot_draws_every_method_and_the_steps_of_the_best():
    points = [
        Point("prompt", 1.0, Interval(0.5, 0.4, 0.6, 8, 4)),
        Point("soup", 1.0, Interval(0.55, 0.5, 0.6, 8, 4)),
        Point("best of 4", 4.0, Interval(0.7, 0.6, 0.8, 8, 4)),
    ]
    figure = frontier_figure(points, [(1.0, 0.55), (4.0, 0.7)], label="utility")
    axes = figure.axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["best within the passes", "prompt", "soup", "best of 4"]
    assert list(axes.lines[0].get_ydata()) == [0.55, 0.7]
    drawn = [line for line in axes.lines if line.get_label() in names[1:]]
    assert [float(line.get_ydata()[0]) for line in drawn] == [0.5, 0.55, 0.7]
    assert drawn[0].get_xdata()[0] != drawn[1].get_xdata()[0]  # side by side
