"""The mixture under a library's trained controller, as `palate answer --way mixture` uses it.

A controlled plan depends on the prompt: every row reads it with its own sentence. So it is made
here, from prompt and preference together, and not in `palate.recipes.ways`.
"""

from collections.abc import Mapping, Sequence

from palate.core.errors import InvalidInputError
from palate.core.protocols import Request, Sampling
from palate.models.engine import LocalEngine
from palate.recipes.mixture_open import open_mixture, strengths_for
from palate.recipes.opened import Opened
from palate.recipes.ways import Chosen


def controlled(
    opened: Opened,
    prompt: str,
    preference: Mapping[str, float] | None,
    *,
    sampling: Sampling,
    seeds: Sequence[int],
) -> tuple[Chosen, list[Request], LocalEngine]:
    """The plan with its reason, one request per seed, and the engine that knows the controller.

    Raises:
        InvalidInputError: there is no preference, or the library has no controller.
        InvalidPreferenceError: the preference is off the simplex, or an objective that is wanted
            has no expert of its own.
        FormatError: the controller was trained for other experts.
    """
    if preference is None:
        raise InvalidInputError(
            "Nothing is known of the person; give a preference or coefficients."
        )
    mixture = open_mixture(opened)
    requests = [mixture.request(prompt, preference, sampling=sampling, seed=seed) for seed in seeds]
    strengths = strengths_for(opened.library.manifest, preference)
    known = "was" if mixture.is_trained_on(preference) else "was not"
    reason = (
        "The library's controller gives the shares, new at every token; it "
        f"{known} trained on this combination. The coefficients are what is wanted of each expert."
    )
    named = {
        name: share
        for name, share in zip(opened.library.manifest.expert_names, strengths, strict=True)
        if share > 0
    }
    return Chosen(requests[0].plan, "mixture", named, reason), requests, mixture.engine
