"""`python -m benchmarks.harness`."""

from benchmarks.harness import main
from research.command_line import run

run(main)
