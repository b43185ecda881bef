"""A vLLM scheduler that lets no row of a group begin before all rows have arrived.

    --scheduler-cls palate.engine.vllm.scheduler.GroupScheduler

The rows of a group are separate requests and arrive one after another. vLLM's own scheduler begins
with the first at once, which splits the group at its first token, and the plugin aborts it. This
one holds rows back until their group is whole; after `HOLD_SECONDS` it lets them go, so that the
plugin ends them. Whatever else splits a group (too few seats or adapter slots, a row put back for
lack of memory) is left to vLLM and found by the plugin.

vLLM calls this interface not public; it is tested with the pinned version.
"""

import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler  # pyright: ignore[reportMissingImports]

HOLD_SECONDS = 5.0


class GroupScheduler(Scheduler):  # pyright: ignore[reportUntypedBaseClass]
    """vLLM's scheduler, but for rows of groups that are not whole yet."""

    def _handle_blocked_waiting_request(self, request: Any) -> bool:
        """Whether a waiting request may begin."""
        return self._is_whole(request) and super()._handle_blocked_waiting_request(request)

    def _is_whole(self, request: Any) -> bool:
        name, n_rows = _group(request)
        if name is None or request.num_output_tokens:
            return True
        if time.time() - request.arrival_time > HOLD_SECONDS:
            return True
        return sum(_group(other)[0] == name for other in self.requests.values()) >= n_rows


def _group(request: Any) -> tuple[str | None, int]:
    """The name of a request's group and how many rows it has."""
    params = request.sampling_params
    xargs = (params.extra_args if params is not None else None) or {}
    return xargs.get("palate_group"), len(xargs.get("palate_shares", ()))
