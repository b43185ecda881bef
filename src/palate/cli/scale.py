"""`palate scale`: beyond one machine: experts, payoff tables and servers on several."""

from pathlib import Path
from typing import Annotated

import typer

from palate.cli.parse import BasePath, FileOverrides, IsJson, LibraryFolder, Overrides
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
from palate.core.files import dump_json

app = typer.Typer(no_args_is_help=True, help="One library on many machines.")


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
    from palate.build.train_job import train_anchor

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
    from palate.build.payoff_job import PayoffJobSettings, measure_payoffs
    from palate.build.run_file import read_prompts
    from palate.core.settings import load_settings
    from palate.portfolio.payoff_file import save_payoffs

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
    """Serve a library as replicas on Ray Serve; any of them serves any user."""
    from palate.core.settings import load_settings
    from palate.serve.assemble import ServeJob
    from palate.serve.replicas import serve_replicas
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
def gather(
    library: Annotated[Path, typer.Argument(help="Prepared by palate build --prepare.")],
    others: Annotated[
        list[Path], typer.Argument(metavar="LIBRARY...", help="Copies that have experts.")
    ],
) -> None:
    """Take the experts that independent jobs trained into one library."""
    from palate.build.gather import gather_experts

    for name, folder in gather_experts(library, others):
        typer.echo(f"{name}: from {folder}")
