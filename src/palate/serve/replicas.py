"""`palate serve`: the server as replicas on Ray Serve, all on one PostgreSQL.

A replica is the whole server of `palate serve` in a process of its own: base, experts, engine,
routes. What it knows of users lies in the database alone (feedback, beliefs, what was shown,
keys), so any replica answers anybody, and one that dies takes nothing with it but the requests it
was answering. Ray starts another.

Where another server writes the answers, every replica has an engine of its own there.

Rates are kept by each replica for itself; every replica is given its share of the settings' rate,
so that a key never gets more than was set.
"""

import signal
import threading
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from palate.build.ray_cluster import NAMESPACE, gpus_of, require_ray, start_ray
from palate.core.errors import CheckFailedError, InvalidInputError
from palate.library.folder import LibraryFolder
from palate.serve.app import make_app
from palate.serve.assemble import ServeJob, open_job, require_safe
from palate.serve.logs import set_up_logs
from palate.serve.settings import ServeSettings

REPLICA = "X-Palate-Replica"  # header of every answer: who gave it
HEALTH_SECONDS = 5.0  # between two looks at a replica
N_STARTS = 3  # tries to start a replica before the whole is given up


def serve_replicas(
    job: ServeJob, *, n_replicas: int, address: str | None = None, n_gpus: float = 1.0
) -> None:
    """Start the replicas and listen until SIGTERM or SIGINT.

    Without an address a Ray cluster is started on this machine. With the device `cuda` each replica
    has so many GPUs; a quarter puts four on one.

    Raises:
        InvalidInputError: the database is not PostgreSQL, the address is public without keys, or
            Ray has too few GPUs.
        MissingExtraError: Ray is not installed.
        FormatError: the library is damaged.
        CheckFailedError: the replicas did not start.
    """
    require_ray()
    require_shared(job.database)
    LibraryFolder.open(job.library)
    require_safe(job.database, host=job.host)  # brings the schema up before many do it
    ray = start_ray(n_cpus=n_replicas, address=address)
    serve: Any = import_module("ray.serve")
    _end_on_signals()
    try:
        gpus = gpus_of(job.device, n=n_replicas, each=n_gpus, address=address, ray=ray)
        options = {"host": job.host, "port": job.port, "keep_alive_timeout_s": 30}
        serve.start(http_options=options, proxy_location="EveryNode")
        try:
            serve.run(_application(serve, job, n_replicas, gpus), name=NAMESPACE, route_prefix="/")
        except RuntimeError as error:
            raise CheckFailedError(
                f"The replicas did not start: {_last_line(error)}; Ray's logs say more."
            ) from error
        threading.Event().wait()
    except _StopError:
        pass
    finally:
        if address is None:
            serve.shutdown()
        else:
            serve.delete(NAMESPACE)
        ray.shutdown()


def require_shared(database: str) -> None:
    """Refuse a database that is a file, which replicas cannot share, with InvalidInputError."""
    if not database.startswith("postgresql"):
        raise InvalidInputError(
            f"Replicas share one database server, and {database!r} is a file; give "
            "--database postgresql://..., or use palate serve for one process."
        )


def share_of(settings: ServeSettings, *, n_replicas: int) -> ServeSettings:
    """Settings of one replica: all of them together allow no more than the settings say."""
    return settings.model_copy(
        update={
            "requests_per_minute": max(1, settings.requests_per_minute // n_replicas),
            "burst": max(1, settings.burst // n_replicas),
        }
    )


def _application(serve: Any, job: ServeJob, n_replicas: int, n_gpus: float) -> Any:
    """The deployment; its class is made here, since Ray is not there when this file is read."""
    settings = share_of(job.settings, n_replicas=n_replicas)
    base = job.base
    if base is not None and Path(base).is_dir():  # replicas may run in another folder
        base = str(Path(base).resolve())
    ours = replace(job, settings=settings, library=job.library.resolve(), base=base)

    class Replica:
        """The server in one process."""

        def __init__(self) -> None:
            set_up_logs(settings.log_level)
            self._served = open_job(ours)

        def __serve_build_asgi_app__(self) -> Any:
            self._served.headers[REPLICA] = serve.get_replica_context().replica_tag
            return make_app(self._served)

        def check_health(self) -> None:
            if not self._served.worker.is_alive:
                raise CheckFailedError("The engine's thread has ended.")

    uses = {"num_gpus": n_gpus} if n_gpus else {"num_cpus": 1}
    deployment = serve.deployment(
        name="server",
        num_replicas=n_replicas,
        ray_actor_options=uses,
        max_ongoing_requests=settings.max_open,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        max_constructor_retry_count=N_STARTS,
    )
    return deployment(serve.ingress()(Replica)).bind()


class _StopError(BaseException):
    """Ends whatever waits, also for replicas that are starting."""


def _end_on_signals() -> None:
    """Let the first SIGTERM or SIGINT end the wait that it meets; the end itself is not ended."""
    both = (signal.SIGTERM, signal.SIGINT)

    def stop(_signal: int, _frame: object) -> None:
        for number in both:
            signal.signal(number, signal.SIG_IGN)
        raise _StopError

    for number in both:
        signal.signal(number, stop)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
