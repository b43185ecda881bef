"""`mixture`: experts pooled token by token under the library's controller.

Every expert is prompted with its own objective's sentence, the controller with all of them.

Source: MoPE, arXiv 2407.04181.

Deviations:
    1. The user's own instruction is not used: the controller knows the objectives' sentences.
"""

import numpy as np

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidCoefficientsError, InvalidInputError
from palate.core.files import hash_value
from palate.core.plan import coefficients_from_mapping
from palate.library.controller import require_controller, strengths_for
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.mixture.rollout import CONTROLLER
from palate.mixture.wording import MixtureRequest


class MixtureMethod:
    """The mixture under the library's controller."""

    name = "mixture"

    def can_serve(self, library: Library) -> bool:
        """Whether there is a controller of the library's experts."""
        return library.controller is not None

    def part_key(self, files: LibraryFolder) -> str:
        """Hash of the controller."""
        part = files.manifest.controller
        return "" if part is None else hash_value(dict(part.files))

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """One row per wanted expert, shares new at every token.

        Raises:
            InvalidInputError: the library has no controller, or no preference is known.
            InvalidPreferenceError: a wanted objective has no expert of its own.
            InvalidCoefficientsError: given coefficients are no shares.
        """
        controller = require_controller(library.controller, library.files)
        strengths = _strengths(library, known)
        request = MixtureRequest(messages, strengths)
        floor = () if library.floor is None else (library.floor.expert,)
        plan = controller.wording.plan(request, controller=CONTROLLER, extra=floor)
        was = "was" if controller.is_trained_on(strengths) else "was not"
        reason = (
            "The library's controller gives the shares, new at every token; it "
            f"{was} trained on this combination. The coefficients are the preference for each "
            "expert."
        )
        named = {
            name: share
            for name, share in zip(library.bank.names, strengths, strict=True)
            if share > 0
        }
        prompted = controller.wording.full_messages(request)
        return Decision(prompted, plan, self.name, named, reason=reason)


def _strengths(library: Library, known: Known) -> tuple[float, ...]:
    """The preference for each expert: given as shares, or from the objectives'."""
    if known.coefficients is not None:
        given = np.array(coefficients_from_mapping(known.coefficients, experts=library.bank.names))
        if np.any(given < 0) or given.sum() <= 0:
            raise InvalidCoefficientsError(
                f"A mixture needs shares of zero or more, but has {given.round(4).tolist()}; use a "
                "soup."
            )
        return tuple((given / given.sum()).tolist())
    shares = library.preference(known)
    if shares is None:
        raise InvalidInputError(
            "Nothing is known of the user that a mixture could follow; give a preference, "
            "coefficients or feedback."
        )
    named = dict(zip(library.manifest.objective_names, shares.tolist(), strict=True))
    return strengths_for(library.manifest, named)
