"""Work for process pools in tests; processes that are started afresh must be able to import it."""

import os
import time

from palate.core.errors import FormatError


def begin():
    """A worker that does what it is told."""
    return _do


def _do(order):
    kind, value = order
    if kind == "fail":
        raise FormatError("The file is of another kind, so give a right one.")
    if kind == "break":
        return 1 / value
    if kind == "die":
        os._exit(7)
    if kind == "meet":  # tells that it came, and waits for the other
        own, other = value
        own.touch()
        deadline = time.monotonic() + 30
        while not other.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return other.exists()
    return value, os.getpid()
