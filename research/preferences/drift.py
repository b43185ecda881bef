"""What looking for changes of preference gains and costs, on simulated users who change theirs."""

from typing import Annotated

import typer

from research.command_line import IsJson, Seed, print_result, run
from research.preferences.study import Study, study_drift


def main(
    *,
    objectives: Annotated[int, typer.Option(min=2, help="Of each preference.")] = 4,
    users: Annotated[int, typer.Option(min=2, help="Simulated users.")] = 100,
    change_at: Annotated[int, typer.Option(min=1, help="Comparisons before the change.")] = 50,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated users who change their preference: recovery, and what looking for changes costs."""
    chosen = Study(n_objectives=objectives, n_users=users, change_at=change_at, seed=seed)
    print_result(study_drift(chosen), is_json=is_json)


if __name__ == "__main__":
    run(main)
