"""A library's soups: basis, trust region, and the coefficients of a belief.

The belief is over the experts' coefficients. An answer's features are
`beta * (log p_k(answer) - log p_0(answer))`, one for each expert; the basis gives the prior.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_value, write_bytes_atomic
from palate.core.plan import reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.core.seeds import generator_for
from palate.core.types import Belief
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored
from palate.library.features import STATE_TOKENS, STATES_PER_ANSWER, sample_states, scored_text
from palate.library.folder import LibraryFolder
from palate.library.manifest import Manifest, experts_key
from palate.models.chat import encode_prompt, format_messages
from palate.models.embedded import cache_folder
from palate.models.load import Base
from palate.preferences.belief import Learner
from palate.preferences.settings import LearningSettings
from palate.rewards.texts import messages_of
from palate.soup.basis_file import SoupBasis, load_basis
from palate.soup.learning import plain_prior
from palate.soup.settings import SoupSettings, settings_for
from palate.soup.spectral import PersonalSoup, personal_soup
from palate.soup.states import States
from palate.soup.trust import expert_kls
from palate.training.rollouts import own_answers, read_rollouts

SOUP = "soup.json"
N_CALIBRATION = 256  # rollouts for the scales of features
N_STATES = 300  # states along these, for the trust region
SLOW_SECONDS = 2.0  # from which on they are kept
N_OWN = 16  # answers of the base instead, where a library has no rollouts
LEAST_KL = 1e-6  # nats per token, of experts that do nothing
MAX_SOUPS = 10_000  # cached


def open_basis(files: LibraryFolder) -> SoupBasis:
    """The library's `soup.json`.

    Raises:
        InvalidInputError: there is none, or it lacks a field.
        FormatError: it is for another base, or for other experts than the library has now.
    """
    path = files.folder / SOUP
    if not path.is_file():
        raise InvalidInputError(
            f"The library {str(files.folder)!r} has no {SOUP}; run 'palate soup basis' first."
        )
    basis = load_basis(path, base=files.manifest.base.fingerprint)
    if basis.experts != files.manifest.expert_names or basis.beta != files.manifest.beta:
        raise FormatError(
            f"The file {str(path)!r} is for the experts {', '.join(basis.experts)} at beta "
            f"{basis.beta:g}, but the library has {', '.join(files.manifest.expert_names)} at "
            f"{files.manifest.beta:g}; run 'palate soup basis' again."
        )
    if basis.experts_key not in ("", experts_key(files.manifest)):
        raise FormatError(
            f"The file {str(path)!r} was measured with other parameters of its experts than the "
            "library has now; run 'palate soup basis' again."
        )
    return basis


def has_own_basis(files: LibraryFolder) -> bool:
    """Whether there is a `soup.json` that was measured with the experts as they are now."""
    if not (files.folder / SOUP).is_file():
        return False
    basis, manifest = load_basis(files.folder / SOUP), files.manifest
    own = (manifest.base.fingerprint, manifest.expert_names, manifest.beta)
    is_own = (basis.base, basis.experts, basis.beta) == own
    return is_own and basis.experts_key in ("", experts_key(manifest))


def plain_basis(manifest: Manifest, states: States) -> SoupBasis:
    """Without a `soup.json`: a plain prior over features scaled by the rollouts."""
    experts = manifest.experts
    scales = [record.tilt_sd if record.tilt_sd > 0 else 1.0 for record in experts]
    return SoupBasis(
        base=manifest.base.fingerprint,
        experts=manifest.expert_names,
        objectives=manifest.objective_names,
        anchors=manifest.anchors(),
        beta=manifest.beta,
        feature_means=np.array([record.tilt_mean for record in experts]),
        feature_scales=np.array(scales),
        effective_rank={},
        prior=plain_prior(n_experts=len(experts)),
        settings=SoupSettings.checked(
            measured_settings(manifest, states, has_population=False), source="the library"
        ),
    )


def extended_basis(basis: SoupBasis, manifest: Manifest) -> SoupBasis:
    """The basis for the experts as they are now: new ones at the plain prior, others as measured.

    The trust region and the strength stay as they were measured without the new experts.
    """
    names, records = manifest.expert_names, manifest.experts
    mine = [place for place, name in enumerate(names) if name in basis.experts]
    theirs = [basis.experts.index(names[place]) for place in mine]
    means = np.array([record.tilt_mean for record in records])
    scales = np.array([record.tilt_sd if record.tilt_sd > 0 else 1.0 for record in records])
    prior = plain_prior(n_experts=len(names), gain=basis.prior.gain)
    means[mine], scales[mine] = basis.feature_means[theirs], basis.feature_scales[theirs]
    prior.mean[mine] = basis.prior.mean[theirs]
    prior.covariance[np.ix_(mine, mine)] = basis.prior.covariance[np.ix_(theirs, theirs)]
    return replace(
        basis,
        experts=names,
        anchors=manifest.anchors(),
        feature_means=means,
        feature_scales=scales,
        prior=replace(prior, n_observations=basis.prior.n_observations),
        experts_key=experts_key(manifest),
    )


def measured_settings(
    manifest: Manifest, states: States, *, has_population: bool
) -> dict[str, float]:
    """The library's trust region, from its anchors and its experts' KL on these states."""
    kls = np.maximum(expert_kls(states), LEAST_KL)
    return settings_for(manifest.anchors(), kls, has_population=has_population)


def calibration_answers(files: LibraryFolder, base: Base) -> list[Scored]:
    """At most `N_CALIBRATION` of the base's own answers among the rollouts, evenly spread."""
    names = files.manifest.objective_names
    rows = own_answers(read_rollouts(files.rollouts_path, objectives=names))
    every = max(1, len(rows) // N_CALIBRATION)
    return [
        replace(scored_text(base, messages_of(row.prompt), ""), answer=row.tokens)
        for row in rows[::every][:N_CALIBRATION]
    ]


def library_states(files: LibraryFolder, base: Base, bank: AdapterBank) -> States:
    """States that the base passes through in its own answers, the same at every call.

    Where measuring takes long they are kept in the cache, under the hash of all they follow from.
    """
    manifest = files.manifest
    experts = [
        [r.anchor.name, dict(r.files)] for r in manifest.experts if r.anchor.name in bank.names
    ]
    rollouts = None if manifest.rollouts is None else manifest.rollouts.to_json()
    sizes = [N_STATES, STATE_TOKENS, STATES_PER_ANSWER]
    key = hash_value([base.fingerprint, str(base.model.dtype), experts, rollouts, sizes])
    path = cache_folder() / "states" / f"{key[:32]}.safetensors"
    with suppress(OSError, SafetensorError, KeyError, InvalidInputError):
        stored = load_file(path)
        return States(stored["reference"], stored["tilts"])
    start = perf_counter()
    answers = answers_to_measure(files, base, bank)
    generator = generator_for(0, "soup states", base.fingerprint)
    states = sample_states(base, bank, answers, n_states=N_STATES, generator=generator)
    if perf_counter() - start > SLOW_SECONDS:
        arrays = {name: np.ascontiguousarray(value) for name, value in vars(states).items()}
        with suppress(OSError):  # measured again next time
            write_bytes_atomic(path, save(arrays))
    return states


def states_again(
    states: States, earlier: LibraryFolder, files: LibraryFolder, base: Base
) -> States:
    """The states of a library that has gained or lost experts: only new ones are measured."""
    before = [(record.anchor.name, record.key) for record in earlier.manifest.experts]
    now = [(record.anchor.name, record.key) for record in files.manifest.experts]
    fresh = [expert for expert in now if expert not in before]
    if earlier.manifest.rollouts != files.manifest.rollouts:
        before, fresh = [], now  # the states are others
    tilts = [] if not before else [states.tilts]
    if fresh:
        bank = AdapterBank.load(base, {name: files.expert_folder(name) for name, _ in fresh})
        states = library_states(files, base, bank)
        bank.close()
        tilts.append(states.tilts)
    places = [[*before, *fresh].index(expert) for expert in now]
    return States(states.reference, np.concatenate(tilts, axis=2)[..., places])


def answers_to_measure(files: LibraryFolder, base: Base, bank: AdapterBank) -> list[Scored]:
    """The library's own rollouts, or else the base's answers to the objectives' sentences."""
    if files.has_rollouts(key=None):
        return calibration_answers(files, base)
    return _own_answers(files.manifest, base, bank)


def _own_answers(manifest: Manifest, base: Base, bank: AdapterBank) -> list[Scored]:
    """Answers of the base to the objectives' sentences."""
    prompts = [o.instruction or o.description or o.name for o in manifest.objectives]
    plan = reference_plan(n_experts=bank.n_experts)
    sampling = SamplingParams(max_tokens=16)
    requests = [
        Request(format_messages(base, prompts[k % len(prompts)]), plan, sampling, seed=k)
        for k in range(N_OWN)
    ]
    answers = LocalEngine(base, bank).generate(requests)
    return [Scored(tuple(encode_prompt(base, a.prompt)), a.tokens) for a in answers]


@dataclass(eq=False)
class Soups:
    """Turns beliefs into coefficients, within the library's trust region."""

    basis: SoupBasis
    read_states: Callable[[], States]  # for the trust region; called once
    floor: tuple[int, float] | None = None  # place and coefficient of the safety expert
    _states: States | None = None
    _soups: OrderedDict[bytes, PersonalSoup] = field(
        default_factory=OrderedDict[bytes, PersonalSoup]
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def states(self) -> States:
        """States on which the trust region is measured."""
        with self._lock:
            if self._states is None:
                self._states = self.read_states()
            return self._states

    def soup(self, belief: Belief) -> PersonalSoup:
        """The soup of the belief, within the trust region and above the floor."""
        key = belief.mean.tobytes() + belief.covariance.tobytes()
        n = belief.n_observations
        key += bytes([n > 0, n >= self.basis.settings.n_early])
        states = self.states
        with self._lock:
            if key in self._soups:
                self._soups.move_to_end(key)
                return self._soups[key]
        soup = personal_soup(
            belief, states=states, method="soup", settings=self.basis.settings, floor=self.floor
        )
        with self._lock:
            self._soups[key] = soup
            while len(self._soups) > MAX_SOUPS:
                self._soups.popitem(last=False)
        return soup

    def prior(self) -> Belief:
        """The belief about a user without feedback, over raw features."""
        scales, prior = self.basis.feature_scales, self.basis.prior
        return Belief(prior.mean / scales, prior.covariance / np.outer(scales, scales))

    def learner(self, settings: LearningSettings | None = None) -> Learner:
        """How beliefs follow from feedback; a population's gain goes before that of settings."""
        settings = settings or LearningSettings()
        prior = self.basis.prior
        if prior.n_observations:
            settings = settings.model_copy(update={"gain": prior.gain})
        return Learner(self.prior(), settings=settings)

    def coefficients(self, belief: Belief) -> dict[str, float]:
        """The soup's coefficients by expert."""
        values = self.soup(belief).coefficients.tolist()
        return dict(zip(self.basis.experts, values, strict=True))

    def preference(self, belief: Belief) -> dict[str, float] | None:
        """The preference of the belief; `None` where it has none."""
        wanted = np.maximum(self.basis.anchors.T @ self.soup(belief).allowed, 0.0)
        if belief.n_observations == 0 or wanted.sum() <= 1e-9:
            return None
        return dict(zip(self.basis.objectives, (wanted / wanted.sum()).tolist(), strict=True))
