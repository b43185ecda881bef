"""Progress of long work: a bar with an estimate on a terminal, plain lines otherwise."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int], None]  # (done, of all)
_PLAIN_SHARE = 0.25  # a plain line each time so much more is done


@contextmanager
def progress_of(name: str) -> Generator[Report]:
    """A function that reports how far the named work is, on standard error."""
    target = Console(stderr=True)
    if target.is_terminal:
        columns = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(
            TextColumn("{task.description}"), BarColumn(), *columns, console=target
        ) as progress:
            task = progress.add_task(name, total=None)
            yield lambda done, of_all: progress.update(task, completed=done, total=of_all)
        return
    start, reported = monotonic(), [-_PLAIN_SHARE]

    def report(done: int, of_all: int) -> None:
        share = done / max(of_all, 1)
        if share < reported[0] + _PLAIN_SHARE and done < of_all:
            return
        reported[0] = share
        seconds = monotonic() - start
        left = seconds * (1 - share) / share if share > 0 else 0.0
        target.print(f"{name}: {done} of {of_all}, {seconds:.0f} s, about {left:.0f} s left")

    yield report


def note(sentence: str) -> None:
    """Print a sentence on standard error."""
    Console(stderr=True).print(sentence, highlight=False, soft_wrap=True)
