"""`python -m research.board`."""

from research.board import main
from research.command_line import run

run(main)
