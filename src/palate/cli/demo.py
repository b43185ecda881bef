"""`palate demo`: one question for eight users, judged, certified, learned, explained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.columns import Columns
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from palate.cli import options
from palate.core.files import dump_json, read_json

if TYPE_CHECKING:
    from palate.demo.report import DemoReport, Gains, LearnedStory, RuleStory

RULE = "{kind: length, unit: words, low: 0, high: 100, prefer: shorter}"


def demo(
    library: Annotated[Path, typer.Argument(help="Folder or name of a library.")] = Path(
        "smollm2-135m"
    ),
    prompt: Annotated[str, typer.Option(help="What everybody asks.")] = "Why is the sky blue?",
    rule: Annotated[str, typer.Option(help="What the further expert is rewarded for.")] = RULE,
    is_trained: Annotated[
        bool, typer.Option("--train/--no-train", help="Solve a further expert for the rule.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("out/demo"),
    seed: options.Seed = 0,
    base: options.BasePath = None,
    is_json: options.IsJson = False,
) -> None:
    """One question for eight users: answers, gains, a certificate, and one user learned."""
    from palate.core.settings import parsed_yaml
    from palate.demo.story import DemoSettings, run_demo
    from palate.library.library import Library
    from palate.rewards.rules import rule_from

    content = parsed_yaml(rule, what=f"rule {rule!r}") if is_trained else None
    reward = rule_from(content, objective="rule") if is_trained else None
    settings = DemoSettings(out, prompt=prompt, seed=seed, rule=reward)
    report = run_demo(Library.load(library, base=base), settings)
    if is_json:
        typer.echo(dump_json(read_json(out / "report.json")))
        return
    console = Console(highlight=False, markup=False, emoji=False)
    _print_answers(console, report)
    _print_parts(console, report)
    for line in report.left_out:
        console.print(f"Left out. {line}", style="dim")
    console.print(f"\n{report.seconds:.0f} s. Report: {out / 'report.html'}")


def _print_parts(console: Console, report: "DemoReport") -> None:
    seed, portfolio, tokens = report.seed, report.portfolio, report.tokens
    if report.gains is not None:
        _print_gains(console, report.gains, seed=seed)
    if portfolio is not None:
        _head(console, "Few policies, with a certificate")
        console.print(f"{', '.join(portfolio.members)}. {portfolio.sentence}")
    if report.learned is not None:
        _print_learned(console, report.learned, seed=seed)
    if tokens is not None:
        shares = tokens.explanation.mean_responsibilities().items()
        _head(console, f"Who wrote the answer to {tokens.user.name} ({tokens.method})")
        named = ", ".join(f"{name} {share:.0%}" for name, share in shares)
        n = len(tokens.explanation.tokens)
        console.print(f"{named} of n = {n} tokens, seed {seed}.")
    if report.rule is not None:
        _print_rule(console, report.rule, seed=seed)


def _head(console: Console, title: str) -> None:
    console.print(f"\n{title}", style="bold")


def _print_answers(console: Console, report: "DemoReport") -> None:
    _head(console, report.prompt)
    width = max((console.width - 1) // 2, 30)

    def panel(name: str, wants: str, text: str) -> Panel:
        lines = (Text(name, "bold"), Text(wants, "dim"), Text(text.strip(), overflow="fold"))
        return Panel(Group(*lines), width=width)

    first = report.users[0]
    panels = [panel("the base", "whoever asks", report.base_text)]
    if first.prompted is not None:
        panels.append(panel("a system prompt", f"for {first.user.name}", first.prompted))
    panels += [
        panel(one.user.name, f"{one.user.wants}; by {one.method}", one.text) for one in report.users
    ]
    console.print(Columns(panels, padding=(0, 1)))
    console.print(f"One answer each, seed {report.seed}.", style="dim")


def _print_gains(console: Console, gains: "Gains", *, seed: int) -> None:
    from palate.demo.report import interval_text

    _head(console, "What users gain in utility")
    columns = ("user", "over the base", "over a prompt", "built")
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))
    for row in (*gains.users, gains.together):
        cells = (interval_text(row.over_base), interval_text(row.over_prompt))
        built = "-" if row.predicted is None else f"{row.predicted.estimate:+.2f}"
        table.add_row(row.name, *cells, built, style="bold" if row is gains.together else "")
    console.print(table)
    apart = f" (but for {', '.join(gains.self_judged)})" if gains.self_judged else ""
    console.print(
        f"n = {gains.n_prompts} held-out prompts a user, judged by rewards that taught no expert"
        f"{apart}; 95 % over prompts, seed {seed}. Built: over the base, when the library was "
        f"built, n = {gains.n_calibration} prompts (methods.json).",
        style="dim",
    )


def _print_learned(console: Console, learned: "LearnedStory", *, seed: int) -> None:
    from palate.demo.report import interval_text

    _head(console, f"One user learned from {learned.n_comparisons} verdicts: {learned.user.name}")
    table = Table("objective", "wanted", "before", "after", box=None, padding=(0, 1, 0, 0))
    for row in learned.wanted:
        cells = (row.before, row.after)
        table.add_row(row.objective, f"{row.truth:.0%}", *(interval_text(one) for one in cells))
    console.print(table)
    after = Text(learned.after.strip(), overflow="fold")
    console.print(Panel(after, title=f"after, by {learned.method}", title_align="left"))
    console.print(
        f"Gain over the base: {interval_text(learned.gain)}, n = {learned.gain.n} held-out "
        f"prompts; {learned.n_agreeing} of {learned.n_comparisons} verdicts follow the user's "
        f"utility, seed {seed}.",
        style="dim",
    )


def _print_rule(console: Console, rule: "RuleStory", *, seed: int) -> None:
    from palate.demo.report import interval_text

    _head(console, f"A further expert in {rule.seconds:.0f} s, in closed form")
    console.print(
        f"Reward {rule.before.estimate:.2f} by the base, {rule.after.estimate:.2f} by the expert: "
        f"{interval_text(rule.gain)}, n = {rule.gain.n} held-out prompts, solved from "
        f"{rule.n_rollouts} answers, seed {seed}. Adapter: {rule.folder}"
    )
