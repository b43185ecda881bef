"""`palate portfolio`: select members from a payoff file, verify the certificate, route users."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import IsJson, PreferenceText, numbers_by_name
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

app = typer.Typer(
    no_args_is_help=True, help="Few policies for everybody, with a certificate anybody can check."
)

PortfolioFile = Annotated[Path, typer.Argument(help="A file written by select.")]


@app.command("select")
def select_members(
    payoff_file: Annotated[Path, typer.Argument(help="Payoff table, plain JSON.")],
    out: Annotated[Path | None, typer.Option(help="Where to write the portfolio.")] = None,
    size: Annotated[int | None, typer.Option(help="Exactly this many members.")] = None,
    epsilon: Annotated[float, typer.Option(help="Or: no loss above this share,")] = 0.0,
    delta: Annotated[float, typer.Option(help="and beyond it no larger amount.")] = 0.0,
    gap: Annotated[
        str, typer.Option(help="additive or multiplicative: what the worst case is measured in.")
    ] = "multiplicative",
    aim: Annotated[str, typer.Option(help="worst, mean or blend: whose loss counts.")] = "worst",
    share: Annotated[float, typer.Option(help="Of the worst case in a blend.")] = 0.5,
    users: Annotated[Path | None, typer.Option(help="JSONL of preferences for mean.")] = None,
    floor: Annotated[
        str | None, typer.Option(metavar="OBJECTIVE=VALUE", help="Refuse members below it.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of bounds on sampled values.")] = 0.95,
    slack: Annotated[
        float | None,
        typer.Option(
            help="Assume all policies this near to optimal for their preference, instead of the "
            "payoff file's slacks."
        ),
    ] = None,
    no_slack: Annotated[
        bool, typer.Option("--no-slack", help="Assume nothing: compare listed policies only.")
    ] = False,
    offset: Annotated[float, typer.Option(help="Added to every reward.")] = 0.0,
    report_on: Annotated[
        Path | None, typer.Option(help="Same policies on other prompts, for the certificate.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Choose members and certify what users lose at most."""
    from palate.portfolio.choice import PortfolioRequest
    from palate.portfolio.everybody import Criterion
    from palate.portfolio.select import select, summary
    from palate.portfolio.selection import Aim, Cost
    from palate.portfolio.terms import Terms

    if no_slack and slack is not None:
        raise InvalidInputError("Give either --slack or --no-slack.")
    terms = Terms(
        confidence=confidence,
        slack="listed" if slack is None and not no_slack else slack,
        offset=offset,
        criterion=cast("Criterion", gap),
        floor=_floor(floor),
    )
    request = PortfolioRequest(
        size=size, epsilon=epsilon, delta=delta, cost=Cost(aim=cast("Aim", aim), share=share)
    )
    record = select(
        payoff_file, request=request, terms=terms, users=users, report_on=report_on, out=out
    )
    _print(summary(record), is_json=is_json)


@app.command()
def verify(portfolio_file: PortfolioFile, is_json: IsJson = False) -> None:
    """Compute the certificate again from the stored table; exit code 1 if a number differs."""
    from palate.portfolio.record import verify_record
    from palate.portfolio.select import summary

    found = {"verified": True, **summary(verify_record(portfolio_file))}
    if not is_json:
        Console().print("Every number follows from the stored payoff table.")
    _print(found, is_json=is_json)


@app.command()
def route(
    portfolio_file: PortfolioFile,
    preference: PreferenceText = None,
    draws: Annotated[
        Path | None, typer.Option(help="Or: JSONL of equally likely preferences.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Say which member serves a user, and what they lose at most."""
    from palate.portfolio import select as files

    shares = numbers_by_name(preference, what="preference")
    if (shares is None) == (draws is None):
        raise InvalidInputError("Give either --preference or --draws.")
    found: dict[str, Any] = {}
    if draws is not None:
        uncertain = files.route_uncertain(portfolio_file, draws=draws)
        chosen = uncertain.route
        found = {
            "expected_loss": uncertain.expected_loss,
            "avoidable_loss": uncertain.avoidable_loss,
        }
    else:
        chosen = files.route(portfolio_file, preference=shares or {})
    margin = chosen.margin if chosen.margin < float("inf") else None
    found = {
        "member": chosen.member,
        "value": chosen.value,
        "margin": margin,
        "loss": chosen.loss,
        **found,
        "plan": chosen.plan.to_json(),
    }
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("member", "worth at least", "better than the second by", "loses at most")
    second = "-" if margin is None else f"{margin:.4f}"
    loss = "unknown" if chosen.loss is None else f"{chosen.loss:.4f}"
    table.add_row(chosen.member, f"{chosen.value:.4f}", second, loss)
    console = Console()
    console.print(table)
    if chosen.loss is None:
        console.print("All listed policies are members; nothing is known beyond them.")


@app.command()
def grow(
    target: Annotated[
        Path, typer.Argument(metavar="LIBRARY|RUN.yaml", help="What to train a portfolio for.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the library of a run file.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As in portfolio.tolerance=0.05."),
    ] = None,
    is_json: IsJson = False,
) -> None:
    """Train experts where the certificate asks for them, until a tolerance or a budget; resumes."""
    from palate.build.grow_run import grow_portfolio

    built = grow_portfolio(target, out=out, overrides=overrides or ())
    if is_json:
        typer.echo(dump_json(built.to_json()))
        return
    if built.portfolio is not None:
        print_grown(built.portfolio.to_json())
    Console().print(f"{built.library.folder}: {built.seconds:.0f} s", highlight=False)


def print_grown(found: dict[str, Any]) -> None:
    """Members, gaps and why the search stopped, for users."""
    console = Console()
    console.print(f"policies: {', '.join(found['policies'])}", highlight=False)
    console.print(f"members: {', '.join(found['members'])}", highlight=False)
    console.print(f"{found['kind']}: {found['statement']}", soft_wrap=True)
    if found["estimated_gap"] is not None:
        console.print(
            f"by the estimates alone, relative to the listed policies: {found['estimated_gap']:.4f}"
        )
    reasons = {
        "tolerance": "the tolerance is met",
        "calls": "the budget is spent",
        "visited": "the preference served worst has its policy already",
        "noise": "the values are too noisy for more policies to prove anything; add prompts",
        "grid": "the grid is complete",
    }
    console.print(f"the search stopped: {reasons[found['stop']]}")


def _floor(text: str | None) -> tuple[str, float] | None:
    floors = numbers_by_name(text, what="floor")
    if floors is None:
        return None
    if len(floors) != 1:
        raise InvalidInputError(f"The floor {text!r} must name one objective, as in safe=0.6.")
    return next(iter(floors.items()))


def _print(found: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        typer.echo(dump_json(found))
        return
    console = Console()
    console.print(f"members: {', '.join(found['members'])}", highlight=False)
    console.print(f"{found['kind']}: {found['statement']}", soft_wrap=True)
    if found["worst_preference"]:
        worst = [round(entry, 4) for entry in found["worst_preference"]]
        console.print(f"worst preference: {worst}")
    bound = "" if found["size_bound"] is None else f"; always enough: {found['size_bound']}"
    console.print(f"size {found['size']}{bound}")
    for name in found["refused"]:
        console.print(f"refused, below the floor: {name}", highlight=False)
    for sentence in found["assumptions"]:
        console.print(f"- {sentence}", highlight=False)
