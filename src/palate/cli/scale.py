"""`palate scale`: beyond one machine; comparisons of other engines with the one in this process."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from palate.cli.parse import BasePath, FileOverrides, IsJson, LibraryFolder, Overrides
from palate.cli.plan import show_plan
from palate.cli.serve_options import (
    Adapters,
    Config,
    Device,
    Dtype,
    Engine,
    Engines,
    EngineSet,
    Host,
    Port,
    Rates,
    Url,
    engine_from,
)
from palate.core.errors import InvalidInputError
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="Other engines and many machines, compared with one.")


@app.command()
def vllm(
    library: Annotated[Path, typer.Argument(help="The library that the server serves.")],
    url: Annotated[str, typer.Option(help="Of a running vLLM, up to and including /v1.")],
    adapters: Adapters = None,
    n: Annotated[int, typer.Option("--n", min=6, help="Requests.")] = 200,
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """The same requests, all ways, through the engine here and through a running vLLM."""
    from palate.core.errors import CheckFailedError
    from palate.core.settings import load_settings
    from palate.models.vllm_wire import VllmSettings
    from palate.recipes.scale_vllm import compare_engines
    from palate.recipes.serve_vllm import folders_of

    settings = load_settings(VllmSettings, overrides=[f"url={url}", *(overrides or ())])
    folders = None if adapters is None else folders_of(adapters)
    found = compare_engines(library, settings, n=n, adapters=folders)
    if is_json:
        typer.echo(dump_json(found))
    else:
        _show(found)
    if found["failures"]:
        raise CheckFailedError("The engines differ: " + "; ".join(found["failures"]) + ".")


@app.command()
def train(
    library: Annotated[Path, typer.Argument(help="Made by palate build.")],
    expert: Annotated[str, typer.Argument(help="Name of an expert or an objective.")],
    out: Annotated[Path, typer.Option(help="New folder for the adapter.")],
    n_steps: Annotated[int | None, typer.Option(min=1, help="Instead of the library's.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Passes of a step; more processes need fewer.")
    ] = None,
    is_json: IsJson = False,
) -> None:
    """One expert on all processes that `accelerate launch` starts; on one without it."""
    from palate.recipes.scale_train import train_anchor

    found = train_anchor(library, expert, out=out, n_steps=n_steps, accumulate=accumulate)
    if not found.is_first:
        return
    if is_json:
        typer.echo(dump_json(found.to_json()))
        return
    typer.echo(
        f"{found.folder}: {len(found.losses)} steps on {found.n_processes} process(es), loss "
        f"{found.losses[0]:.6f} to {found.losses[-1]:.6f}"
    )


@app.command()
def payoff(
    library: Annotated[Path, typer.Argument(help="Made by palate build.")],
    prompts: Annotated[Path, typer.Option(help="JSONL with a column prompt.")],
    out: Annotated[Path, typer.Option(help="For the payoff table.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Price the base and all experts; with --set workers=N on N Ray workers, digit for digit."""
    from palate.core.settings import load_settings
    from palate.portfolio.payoff_file import save_payoffs
    from palate.recipes.run_file import read_prompts
    from palate.recipes.scale_payoff import PayoffJobSettings, measure_payoffs

    settings = load_settings(PayoffJobSettings, overrides=overrides or ())
    found = measure_payoffs(library, read_prompts(prompts), settings)
    save_payoffs(out, found.payoffs)
    table = found.payoffs.table
    if is_json:
        values = dict(zip(table.policies, table.values.tolist(), strict=True))
        typer.echo(dump_json({"objectives": table.objectives, "values": values}))
        return
    typer.echo(f"{out}: {len(table.policies)} policies from {found.n_cells} cells")


@app.command()
def serve(
    library: LibraryFolder,
    database: Annotated[
        str,
        typer.Option("--database", envvar="PALATE_DATABASE", help="postgresql://..., one for all."),
    ],
    replicas: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 2,
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; without it, one starts here.")
    ] = None,
    gpus: Annotated[
        float, typer.Option(min=0.01, help="Of each, with --device cuda; 0.25 puts 4 on one.")
    ] = 1.0,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    config: Config = None,
    overrides: FileOverrides = None,
    base: BasePath = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    engine: Engine = Engines.local,
    url: Url = None,
    adapters: Adapters = None,
    rates: Rates = True,
    engine_set: EngineSet = None,
) -> None:
    """Serve a library as replicas on Ray Serve; any of them serves any person."""
    from palate.core.settings import load_settings
    from palate.recipes.scale_serve import serve_replicas
    from palate.recipes.serve import ServeJob
    from palate.serve.settings import ServeSettings

    settings = load_settings(ServeSettings, config, overrides=overrides or ())
    engine_of = engine_from(
        engine,
        url=url,
        adapters=adapters,
        rates=rates,
        engine_set=engine_set,
        n_replicas=replicas,
    )
    job = ServeJob(library, database, host, port, base, device, dtype, settings, engine_of)
    serve_replicas(job, n_replicas=replicas, address=address, n_gpus=gpus)


@app.command()
def drill(
    library: Annotated[Path, typer.Argument(help="What the replicas serve.")],
    database: Annotated[str, typer.Option(help="postgresql://..., without people.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Kill a replica under load; fails if feedback that was acknowledged is lost."""
    from palate.core.settings import load_settings
    from palate.recipes.people_drill import require_passed
    from palate.recipes.scale_drill import ReplicaDrillSettings, drill_replicas

    settings = load_settings(ReplicaDrillSettings, overrides=overrides or ())
    found = drill_replicas(library, database, settings)
    if is_json:
        typer.echo(dump_json(found))
    else:
        _show_drill(found)
    require_passed(found)


@app.command()
def plan(
    model: Annotated[str | None, typer.Option(help="Of the base, such as llama-3.2-1b.")] = None,
    device: Annotated[str | None, typer.Option(help="That answers, such as h200.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run file of palate build, for base, experts, training.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of the plan's settings.")] = None,
    overrides: FileOverrides = None,
    is_json: IsJson = False,
) -> None:
    """What a thousand to a billion people need, and what breaks first; nothing is run."""
    from palate.core.settings import load_settings
    from palate.recipes.scale_plan import PlanSettings
    from palate.recipes.scale_plan import plan as planned

    named = {"model": model, "device": device}
    given = [f"{name}={value}" for name, value in named.items() if value is not None]
    given += overrides or ()
    if run is not None and config is not None:
        raise InvalidInputError("Give a run file or a plan's settings, not both.")
    if run is not None:
        from palate.recipes.scale_plan_run import settings_of_run

        settings = settings_of_run(run, overrides=given)
    else:
        settings = load_settings(PlanSettings, config, overrides=given)
    found = planned(settings)
    if is_json:
        typer.echo(dump_json(found))
    else:
        show_plan(found)


@app.command()
def rows(
    database: Annotated[str, typer.Option(help="postgresql://..., without people.")],
    overrides: Overrides = None,
    is_json: IsJson = False,
) -> None:
    """Bytes that a person, an answer and an item of feedback take in PostgreSQL."""
    from palate.core.settings import load_settings
    from palate.recipes.scale_rows import RowSettings, measure_rows

    found = measure_rows(database, load_settings(RowSettings, overrides=overrides or ()))
    if is_json:
        typer.echo(dump_json(found))
        return
    for name in ("person", "answer", "feedback"):
        typer.echo(f"{found[f'bytes_per_{name}']:,.0f} bytes per {name}")


@app.command()
def gather(
    library: Annotated[Path, typer.Argument(help="Prepared by palate build --prepare.")],
    others: Annotated[
        list[Path], typer.Argument(metavar="LIBRARY...", help="Copies that have experts.")
    ],
) -> None:
    """Take the experts that independent jobs trained into one library."""
    from palate.recipes.scale_gather import gather_experts

    for name, folder in gather_experts(library, others):
        typer.echo(f"{name}: from {folder}")


def _show_drill(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("replicas", "requests", "failed", "error rate", "95 %", "p95 seconds")
    for phase, row in found["phases"].items():
        interval = f"{row['low']:.1%} to {row['high']:.1%}"
        table.add_row(
            phase,
            str(row["n"]),
            str(row["n_failed"]),
            f"{row['error_rate']:.1%}",
            interval,
            f"{row['p95_seconds']:.2f}",
        )
    console.print(table)
    console.print(
        f"{found['n_acknowledged']} judgements acknowledged, {found['n_kept']} kept, "
        f"{found['n_lost']} lost, {found['n_twice']} twice; "
        f"{found['n_sent_again_and_found']} sent again that were there already"
    )


def _show(found: dict[str, Any]) -> None:
    console = Console()
    for title, rows in (("whole lists", found["ways"]), ("short lists", found["short_lists"])):
        table = Table(
            title, "requests", "same tokens", "ties", "log-prob gap", "distance", "bound", "certain"
        )
        for row in rows:
            table.add_row(
                row["way"],
                str(row["n"]),
                str(row["n_equal"]),
                str(row["n_ties"]),
                f"{row['largest_log_prob_gap']:.1e}",
                f"{row['largest_distance']:.4f}",
                f"{row['largest_bound']:.4f}",
                f"{row['n_certified'] / row['n_tokens']:.1%}",
            )
        console.print(table)
    check = found["rounding"]["held_out"]
    console.print(
        f"rounding: {check['n_outside']} of {check['n_tokens']} held-out tokens outside the bound; "
        f"largest {check['largest']:.4f}, mean bound {check['mean_bound']:.4f}"
    )
