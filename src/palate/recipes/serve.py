"""`palate serve`: a library, a database of people, and a server that answers from both."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from palate.core.errors import InvalidInputError, MissingExtraError
from palate.core.files import hash_value
from palate.core.plan import reference_plan
from palate.core.protocols import Request, Sampling
from palate.core.seeds import generator_for
from palate.mixture.decode import DecodeSettings
from palate.mixture.pooling import Floor as MixtureFloor
from palate.models.chat import encode_prompt
from palate.models.control import Controller
from palate.models.engine import LocalEngine
from palate.models.logprobs import Scored
from palate.models.read import Reading
from palate.recipes.mixture_open import has_controller, open_mixture
from palate.recipes.opened import Opened, open_library
from palate.recipes.soup_basis import (
    SOUP,
    calibration_answers,
    measured_settings,
    open_basis,
)
from palate.recipes.soup_features import sample_states
from palate.recipes.ways import anchors
from palate.soup.basis_file import SoupBasis
from palate.soup.learning import plain_prior
from palate.soup.normalised import States
from palate.soup.settings import SoupSettings

try:
    from palate.profiles.database import open_database
    from palate.profiles.keys import list_keys
    from palate.profiles.persons import require_mark
    from palate.recipes.serve_ways import LibraryWays
    from palate.serve.auth import require_safe_host
    from palate.serve.believed import Believer
    from palate.serve.engine import AnswerEngine
    from palate.serve.floor import Floor
    from palate.serve.run import serve
    from palate.serve.settings import ServeSettings
    from palate.serve.state import Offer, Served
except ModuleNotFoundError as error:
    raise MissingExtraError(f"The server needs {error.name}; install palate[serve].") from error

N_STATES = 200  # along the base's own answers, where the trust region is measured
N_FALLBACK = 16  # answers of the base that give states where a library has no rollouts

EngineOf = Callable[[Opened, Mapping[str, Controller]], "AnswerEngine"]


@dataclass(frozen=True)
class ServeJob:
    """What is served, and where.

    Attributes:
        library: Its folder.
        database: URL, or path of a SQLite file.
        host: Address to listen on.
        port: To listen on.
        base: Where the base is now, if it has moved.
        device: As torch names devices.
        dtype: Of the base's parameters.
        settings: Of the server.
        engine_of: Makes what answers from the opened library and its controllers; `None` answers
            in this process.
    """

    library: Path
    database: str
    host: str
    port: int
    base: str | None
    device: str
    dtype: str
    settings: ServeSettings
    engine_of: EngineOf | None = None


def serve_library(job: ServeJob) -> None:
    """Open everything and listen until told to stop.

    Raises:
        InvalidInputError: the address is public and there are no keys, or there is no library.
        FormatError: the library is damaged, or the database belongs to another one.
        ProviderError: the database cannot be reached.
    """
    database = open_database(job.database)
    try:
        has_keys = any(not key.is_revoked for key in list_keys(database))
        require_safe_host(job.host, has_keys=has_keys)
        opened = open_library(job.library, base=job.base, device=job.device, dtype=job.dtype)
        served = assemble(opened, job.settings, database=job.database, engine_of=job.engine_of)
        serve(served, host=job.host, port=job.port)
    finally:
        database.close()


def assemble(
    opened: Opened,
    settings: ServeSettings,
    *,
    database: str,
    engine_of: EngineOf | None = None,
) -> Served:
    """The server's parts.

    Raises:
        InvalidInputError: the library has no experts.
        FormatError: a part of the library does not fit, or the database belongs to another one.
    """
    manifest = opened.library.manifest
    if not manifest.experts:
        raise InvalidInputError(
            f"The library {str(opened.library.folder)!r} has no experts to serve; build some."
        )
    states = library_states(opened)
    basis = library_basis(opened, states)
    place = basis.floor_place
    floor = None
    if basis.floor is not None and place is not None and basis.floor[1] > 0:
        floor = Floor(basis.floor[0], place[0], basis.floor[1])
    mixture = None
    if has_controller(opened):
        share = None if floor is None else MixtureFloor(floor.expert, floor.share)
        mixture = open_mixture(opened, settings=DecodeSettings(floor=share))
    controllers = {} if mixture is None else mixture.engine.controllers
    engine: AnswerEngine
    if engine_of is not None:
        engine = engine_of(opened, controllers)
    else:
        engine = LocalEngine(
            opened.base,
            opened.bank,
            max_rows=settings.max_rows,
            max_positions=settings.max_positions,
            reading=Reading(settings.max_prefix_tokens, settings.max_read_tokens),
            controllers=controllers,
        )
    identity = hash_value(
        [manifest.base.fingerprint, [[r.anchor.name, r.key] for r in manifest.experts]]
    )
    kept = open_database(database)
    require_mark(
        kept,
        name="library",
        value=identity,
        remedy="feedback speaks of one library's experts, so give each library its own database",
    )
    return Served(
        settings=settings,
        offer=Offer(
            name=_shown_base(manifest.base.path),
            fingerprint=f"palate-{identity[:12]}",
            beta=manifest.beta,
            objectives=manifest.objectives,
            experts={
                record.anchor.name: dict(
                    zip(manifest.objective_names, record.anchor.direction, strict=True)
                )
                for record in manifest.experts
            },
        ),
        engine=engine,
        ways=LibraryWays(opened, mixture, floor, settings.auto_tolerance),
        believer=Believer(basis, states, settings, floor),
        database=kept,
        has_keys=any(not key.is_revoked for key in list_keys(kept)),
        floor=floor,
    )


def _shown_base(path: str) -> str:
    """A hub id as it is; of a folder the last part, since the rest is the server's own affair."""
    return Path(path).name if Path(path).is_absolute() else path


def library_basis(opened: Opened, states: States) -> SoupBasis:
    """The library's `soup.json`, or else a plain prior over features scaled by the rollouts.

    The trust region is the same either way.
    """
    manifest = opened.library.manifest
    if (opened.library.folder / SOUP).is_file():
        return open_basis(opened.library)
    experts = manifest.experts
    scales = [record.tilt_sd if record.tilt_sd > 0 else 1.0 for record in experts]
    return SoupBasis(
        base=manifest.base.fingerprint,
        experts=manifest.expert_names,
        objectives=manifest.objective_names,
        anchors=anchors(manifest),
        beta=manifest.beta,
        feature_means=np.array([record.tilt_mean for record in experts]),
        feature_scales=np.array(scales),
        effective_rank={},
        prior=plain_prior(n_experts=len(experts)),
        settings=SoupSettings.checked(
            measured_settings(manifest, states, has_population=False), source="the library"
        ),
    )


def library_states(opened: Opened) -> States:
    """States where the trust region is measured: along rollouts, or answers made for it."""
    library = opened.library
    has_rollouts = library.manifest.rollouts is not None and library.manifest.rollouts.files
    items = calibration_answers(opened) if has_rollouts else _own_answers(opened)
    return sample_states(
        opened.base,
        opened.bank,
        items,
        n_states=N_STATES,
        generator=generator_for(0, "soup states", opened.base.fingerprint),
    )


def _own_answers(opened: Opened) -> list[Scored]:
    """Answers of the base to the objectives' own words."""
    base, objectives = opened.base, opened.library.manifest.objectives
    prompts = [o.instruction or o.description or o.name for o in objectives]
    plan = reference_plan(n_experts=opened.bank.n_experts)
    requests = [
        Request(prompts[place % len(prompts)], plan, Sampling(max_tokens=16), seed=place)
        for place in range(N_FALLBACK)
    ]
    answers = opened.engine.generate(requests)
    return [Scored(tuple(encode_prompt(base, a.prompt)), a.tokens) for a in answers]
