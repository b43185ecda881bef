"""`palate portfolio`: price policies, select members, verify the certificate, route users."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from palate.cli import options
from palate.cli.printing import print_result
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="A few policies for all users, with a certificate.")

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
    is_json: options.IsJson = False,
) -> None:
    """Choose members and certify what users lose at most."""
    from palate.portfolio.choice import PortfolioRequest
    from palate.portfolio.everybody import Criterion
    from palate.portfolio.route import select, summary
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
    _print_record(summary(record), is_json=is_json)


@app.command()
def verify(portfolio_file: PortfolioFile, is_json: options.IsJson = False) -> None:
    """Compute the certificate again from the stored table; exit code 1 if a number differs."""
    from palate.portfolio.record import verify_record
    from palate.portfolio.route import summary

    verified = {"verified": True, **summary(verify_record(portfolio_file))}
    if not is_json:
        Console().print("Every number follows from the stored payoff table.")
    _print_record(verified, is_json=is_json)


@app.command()
def route(
    portfolio_file: PortfolioFile,
    preference: options.PreferenceText = None,
    draws: Annotated[
        Path | None, typer.Option(help="Or: JSONL of equally likely preferences.")
    ] = None,
    is_json: options.IsJson = False,
) -> None:
    """Say which member serves a user, and what they lose at most."""
    from palate.portfolio import route as files

    shares = options.numbers_by_name(preference, what="preference")
    if (shares is None) == (draws is None):
        raise InvalidInputError("Give either --preference or --draws.")
    losses: dict[str, float | None] = {}
    if draws is None:
        served = files.route(portfolio_file, preference=shares or {})
    else:
        uncertain = files.route_uncertain(portfolio_file, draws=draws)
        served = uncertain.route
        losses = {
            "expected_loss": uncertain.expected_loss,
            "avoidable_loss": uncertain.avoidable_loss,
        }
    content: dict[str, Any] = {
        "member": served.member,
        "value": served.value,
        "margin": served.margin if served.margin < float("inf") else None,
        "loss": served.loss,
        **losses,
    }
    if is_json:
        content["plan"] = served.plan.to_json()
    print_result(content, is_json=is_json)
    if served.loss is None and not is_json:
        typer.echo("The loss is unknown: all listed policies are members.")


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
    is_json: options.IsJson = False,
) -> None:
    """Train experts where the certificate asks for them, until a tolerance or a budget; resumes."""
    from palate.build.library import grow_portfolio

    built = grow_portfolio(target, out=out, overrides=overrides or ())
    if is_json:
        typer.echo(dump_json(built.to_json()))
        return
    if built.portfolio is not None:
        print_grown(built.portfolio.to_json())
    Console().print(f"{built.library.folder}: {built.seconds:.0f} s", highlight=False)


@app.command()
def measure(
    library: options.LibraryFolder,
    prompts: Annotated[Path, typer.Option(help="JSONL with a column prompt.")],
    out: Annotated[Path, typer.Option(help="File for the payoff table.")],
    overrides: options.Overrides = None,
    is_json: options.IsJson = False,
) -> None:
    """Price the base and all experts; with --set workers=N on N Ray workers, digit for digit."""
    from palate.build.payoff_job import PayoffJobSettings, measure_payoffs
    from palate.build.run_file import read_prompts
    from palate.core.settings import load_settings
    from palate.portfolio.payoff_file import save_payoffs

    settings = load_settings(PayoffJobSettings, overrides=overrides or ())
    run = measure_payoffs(library, read_prompts(prompts), settings)
    save_payoffs(out, run.payoffs)
    table = run.payoffs.table
    values = dict(zip(table.policies, table.values.tolist(), strict=True))
    print_result({"objectives": table.objectives, "values": values}, is_json=is_json)


def print_grown(grown: dict[str, Any]) -> None:
    """Print members, gaps and why the search stopped."""
    console = Console()
    console.print(f"policies: {', '.join(grown['policies'])}", highlight=False)
    console.print(f"members: {', '.join(grown['members'])}", highlight=False)
    console.print(f"{grown['kind']}: {grown['statement']}", soft_wrap=True)
    if grown["estimated_gap"] is not None:
        console.print(
            f"by the estimates alone, relative to the listed policies: {grown['estimated_gap']:.4f}"
        )
    reasons = {
        "tolerance": "the tolerance is met",
        "calls": "the budget is spent",
        "visited": "the preference served worst has its policy already",
        "noise": "the values are too noisy for more policies to prove anything; add prompts",
        "grid": "the grid is complete",
    }
    console.print(f"the search stopped: {reasons[grown['stop']]}")


def _floor(text: str | None) -> tuple[str, float] | None:
    floors = options.numbers_by_name(text, what="floor")
    if floors is None:
        return None
    if len(floors) != 1:
        raise InvalidInputError(f"The floor {text!r} must name one objective, as in safe=0.6.")
    return next(iter(floors.items()))


def _print_record(record: dict[str, Any], *, is_json: bool) -> None:
    if is_json:
        typer.echo(dump_json(record))
        return
    console = Console()
    console.print(f"members: {', '.join(record['members'])}", highlight=False)
    console.print(f"{record['kind']}: {record['statement']}", soft_wrap=True)
    if record["worst_preference"]:
        worst = [round(entry, 4) for entry in record["worst_preference"]]
        console.print(f"worst preference: {worst}")
    bound = "" if record["size_bound"] is None else f"; always enough: {record['size_bound']}"
    console.print(f"size {record['size']}{bound}")
    for name in record["refused"]:
        console.print(f"refused, below the floor: {name}", highlight=False)
    for sentence in record["assumptions"]:
        console.print(f"- {sentence}", highlight=False)
