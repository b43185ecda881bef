"""Listening: uvicorn, with a drain that lets running answers end."""

import gc

import uvicorn

from palate.serve.app import make_app
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
    config = uvicorn.Config(
        make_app(served),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=served.settings.drain_seconds,
        timeout_keep_alive=30,
    )
    server = _Draining(config)
    server.served = served
    gc.collect()
    gc.freeze()  # model and libraries stay: going through them again stops every answer for 0.3 s
    try:
        server.run()
    finally:
        served.database.close()
