"""`--engine vllm` of what serves: a running vLLM writes the answers, this process does the rest.

The base and its experts are loaded here, too: they tokenise, compute the features of answers that
users judge (one pass for every expert and one for the base over each judged answer), measure how
fast distributions change with each coefficient, and give the explanations.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from palate.core.errors import InvalidInputError
from palate.core.plan import reference_plan
from palate.core.protocols import Request, SamplingParams
from palate.engine.bank import AdapterBank
from palate.engine.logprobs import Scored
from palate.engine.vllm.engine import VllmEngine
from palate.engine.vllm.place import share_of
from palate.engine.vllm.session import VllmSession
from palate.engine.vllm.wire import VllmSettings
from palate.library.library import Library
from palate.library.soup import calibration_answers
from palate.models.chat import encode_prompt
from palate.models.load import Base
from palate.serve.vllm import connect
from palate.serve.vllm_rates import rounding_rates, users_points

N_TEXTS = 4  # and points, at which rates are measured
N_POINTS = 12
TEXT_TOKENS = 16  # of texts made for it


@dataclass(frozen=True, eq=False)
class VllmAnswers:
    """Answers from a vLLM, read in this process; see `palate.serve.engine.AnswerEngine`.

    Attributes:
        base: In this process.
        bank: In this process.
        engine: Over HTTP.
    """

    base: Base
    bank: AdapterBank
    engine: VllmEngine

    @property
    def max_num_seqs(self) -> int:
        """Answers in flight."""
        return self.engine.max_num_seqs

    def open_session(self) -> VllmSession:
        """An open-ended run."""
        return self.engine.open_session()

    def require_ready(self) -> None:
        """Return when the vLLM says that it works.

        Raises:
            ProviderError: it does not.
        """
        self.engine.parts.client.require_alive()

    def close(self) -> None:
        """Unload the soups."""
        self.engine.close()


def answers_from(
    settings: VllmSettings,
    *,
    adapters: Path | None,
    is_rated: bool,
) -> Callable[[Library], VllmAnswers]:
    """Makes what answers from an opened library.

    Args:
        settings: Where the vLLM is, and how it is used.
        adapters: Folder of other folders of the same experts for the server, where its base is a
            rewritten one (`palate.engine.vllm.widen`).
        is_rated: Measure at the start how fast distributions change, so that rounding of
            coefficients has a bound; otherwise it is reported as not known.

    Raises:
        InvalidInputError: there are no adapters in their folder, or there is less of the vLLM than
            a share for every process.
    """
    share_of(settings)  # what is wrong here is told before anything starts
    here = settings.adapters_folder.resolve()  # it may be made in another process, elsewhere
    use = settings.model_copy(update={"adapters_folder": here})
    folders = None if adapters is None else folders_of(adapters.resolve())

    def make(library: Library) -> VllmAnswers:
        needs_rates = is_rated and use.coefficient_step > 0
        rates = rates_of(library) if needs_rates else ()
        engine = connect(
            library, use, adapters=folders, rates=rates, controllers=library.controllers
        )
        return VllmAnswers(library.base, library.bank, engine)

    return make


def folders_of(adapters: Path) -> dict[str, Path]:
    """The experts' folders in a folder, by name.

    Raises:
        InvalidInputError: it holds none.
    """
    found = {path.name: path for path in sorted(adapters.glob("*/")) if path.is_dir()}
    if not found:
        raise InvalidInputError(
            f"The folder {str(adapters)!r} holds no adapters; give the one that the server's "
            "--lora-modules come from."
        )
    return found


def rates_of(library: Library) -> tuple[float, ...]:
    """How fast next-token distributions change with each expert's coefficient, on a few texts."""
    n_experts = library.bank.n_experts
    return rounding_rates(
        library.base,
        library.bank,
        items=_texts(library),
        points=users_points(n_experts=n_experts, n_points=N_POINTS, seed=0),
    )


def _texts(library: Library) -> list[Scored]:
    """The library's own rollouts, or else what the base says to the objectives' words."""
    if library.files.has_rollouts(key=None):
        return calibration_answers(library.files, library.base)[:N_TEXTS]
    objectives = library.manifest.objectives
    words = [o.instruction or o.description or o.name for o in objectives]
    plan = reference_plan(n_experts=library.bank.n_experts)
    sampling = SamplingParams(max_tokens=TEXT_TOKENS)
    requests = [
        Request(words[place % len(words)], plan, sampling, seed=place) for place in range(N_TEXTS)
    ]
    return [
        Scored(tuple(encode_prompt(library.base, answer.prompt)), answer.tokens)
        for answer in library.engine.generate(requests)
    ]
