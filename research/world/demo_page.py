"""The demo's page: numbers in, one self-contained HTML file out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from palate.evaluate.plots.charts import as_svg, heat_table
from palate.mixture.explain import Explanation, render_legend, render_tokens
from research.figures import curve_panels


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
class UserAnswer:
    """What one user wants and got."""

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
class PortfolioStory:
    """The best portfolio of each size.

    Attributes:
        members: Names, for sizes one, two and so on.
        certified: Bound on what users lose by having only these, relative to the listed policies,
            reward units, by size.
        estimated: The same by the measured values alone, without their sampling error.
        n_policies: That could be kept.
        confidence: Of each bound.
        n_prompts: Behind the table; half of them chose, half certify.
    """

    members: tuple[tuple[str, ...], ...]
    certified: tuple[float, ...]
    estimated: tuple[float, ...]
    n_policies: int
    confidence: float
    n_prompts: int

    @property
    def figure(self) -> str:
        """The bound by size, an `<svg>` element."""
        sizes = [float(size) for size in range(1, len(self.certified) + 1)]
        return as_svg(
            curve_panels(
                {
                    "loss at most, to the listed policies": {
                        "certified": (sizes, self.certified),
                        "estimated": (sizes, self.estimated),
                    }
                },
                x_label="members",
                title="few policies for everybody",
            )
        )


@dataclass(frozen=True)
class LearnedStory:
    """One user, learned from comparisons.

    Attributes:
        user: Name.
        label: What they want; the model never sees it.
        comparisons: After how many.
        utilities: Mean gold utility of what was served then.
        known: The same when the preference is known.
        answers: What was served then, to the first prompt.
    """

    user: str
    label: str
    comparisons: tuple[int, ...]
    utilities: tuple[Cell, ...]
    known: Cell
    answers: tuple[str, ...]


@dataclass(frozen=True)
class MixtureStory:
    """One answer of several experts, and who wrote what."""

    user: str
    label: str
    explanation: Explanation

    @property
    def legend(self) -> str:
        """The experts in their colours; HTML."""
        return render_legend(self.explanation)

    @property
    def tokens(self) -> str:
        """The answer, each token in the colour of who most likely wrote it; HTML."""
        return render_tokens(self.explanation)


@dataclass(frozen=True)
class DemoReport:
    """Everything on the page.

    Attributes:
        prompt: The prompt that everybody asked.
        base_answer: What the base says to it.
        users: Eight users' answers.
        objectives: Column names.
        rows: The base, the experts, the users.
        rewards: One line per objective.
        n_parameters: Of the base.
        n_prompts: Held-out prompts behind the table.
        n_answers: Answers per plan behind the table.
        over_prompt: What users get less what a system prompt gives them, gold utility.
        n_users_served: Users who get more than the base gives on all three wanted objectives.
        experts: Names.
        n_trained: Experts that this run trained; the others were there.
        build_seconds: Until the library was whole, in this run.
        seed: Random seed of the run.
        portfolio: Few policies for everybody.
        learned: One user, learned.
        mixture: One answer, token by token.
    """

    prompt: str
    base_answer: str
    users: tuple[UserAnswer, ...]
    objectives: tuple[str, ...]
    rows: tuple[TableRow, ...]
    rewards: tuple[RewardLine, ...]
    n_parameters: int
    n_prompts: int
    n_answers: int
    over_prompt: Cell
    n_users_served: int
    experts: tuple[str, ...]
    n_trained: int
    build_seconds: float
    seed: int
    portfolio: PortfolioStory
    learned: LearnedStory
    mixture: MixtureStory

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
