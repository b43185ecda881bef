"""The demo's page: numbers in, one self-contained HTML file out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.evaluate.plots.heat import heat_table
from palate.evaluate.plots.theme import as_svg


@dataclass(frozen=True)
class Cell:
    """A mean with its interval, in [0, 1]."""

    mean: float
    low: float
    high: float
    is_wanted: bool


@dataclass(frozen=True)
class TableRow:
    """One plan's gold rewards and share of well-formed answers."""

    name: str
    cells: tuple[Cell, ...]
    well_formed: float


@dataclass(frozen=True)
class PersonAnswer:
    """What one person wants and got."""

    name: str
    label: str
    answer: str


@dataclass(frozen=True)
class RewardLine:
    """A reward model's held-out accuracy beside the length baseline."""

    objective: str
    accuracy: float
    low: float
    high: float
    n: int
    longer_wins: float


@dataclass(frozen=True)
class DemoReport:
    """Everything on the page.

    Attributes:
        prompt: The prompt that everybody asked.
        base_answer: What the base says to it.
        people: Eight people's answers.
        objectives: Column names.
        rows: The base, the experts, the people.
        rewards: One line per objective.
        n_parameters: Of the base.
        n_prompts: Held-out prompts behind the table.
        n_answers: Answers per plan behind the table.
        n_people_served: People whose soup beats the base on all three wanted objectives.
        experts: Names.
        n_trained: Experts that this run trained; the others were there.
        build_seconds: Until the library was whole, in this run.
        seed: Of everything.
    """

    prompt: str
    base_answer: str
    people: tuple[PersonAnswer, ...]
    objectives: tuple[str, ...]
    rows: tuple[TableRow, ...]
    rewards: tuple[RewardLine, ...]
    n_parameters: int
    n_prompts: int
    n_answers: int
    n_people_served: int
    experts: tuple[str, ...]
    n_trained: int
    build_seconds: float
    seed: int

    @property
    def figure(self) -> str:
        """The table as a heat map, an `<svg>` element."""
        return as_svg(
            heat_table(
                np.array([[cell.mean for cell in row.cells] for row in self.rows]),
                rows=[row.name for row in self.rows],
                columns=self.objectives,
                is_wanted=np.array([[cell.is_wanted for cell in row.cells] for row in self.rows]),
                title="mean gold reward",
            )
        )


def render_demo_page(report: DemoReport) -> str:
    """The page as HTML; texts are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("demo.html.jinja").render(report=report)
