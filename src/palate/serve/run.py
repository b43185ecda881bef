"""Listening: uvicorn, with a drain that lets running answers end."""

import gc
from contextlib import suppress
from functools import partial
from typing import Any

import uvicorn

from palate.serve.app import make_app
from palate.serve.connections import BoundedProtocol
from palate.serve.logs import LOGGER, set_up_logs
from palate.serve.state import Served


class _Draining(uvicorn.Server):
    """Lets the application know when it shall stop."""

    served: Served

    def handle_exit(self, sig: int, frame: object) -> None:
        if not self.served.is_draining:
            LOGGER.info("draining")
        self.served.is_draining = True
        super().handle_exit(sig, frame)  # type: ignore[arg-type]


def serve(served: Served, *, host: str, port: int) -> None:
    """Listen until SIGTERM or SIGINT; running answers may end first."""
    set_up_logs(served.settings.log_level)
    settings = served.settings
    with suppress(ImportError):  # on Windows
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a connection is an open file
    protocol: Any = partial(BoundedProtocol, settings)
    keys = "every request needs a key" if served.has_keys else "no key is needed"
    LOGGER.info("starting: %s, %s requests a minute each", keys, served.limit.per_minute)
    config = uvicorn.Config(
        make_app(served),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        timeout_keep_alive=30,
        http=protocol,
        ws="none",
    )
    server = _Draining(config)
    server.served = served
    gc.collect()
    gc.freeze()  # model and libraries stay: going through them again stops every answer for 0.3 s
    try:
        server.run()
    finally:
        served.database.close()
