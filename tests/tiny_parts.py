"""What a tiny library may have beyond its experts: a portfolio, a controller, an own method."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from palate.core.decision import Decision, Known, Messages
from palate.library.library import Library
from research.mixture.plans import mixture_plan
from tiny import _add_controller, _add_portfolio


def save_tiny_offered_library(tiny_library: Path, folder: Path) -> Path:
    """A copy of the tiny library with a portfolio and a controller, and nothing measured."""
    shutil.copytree(tiny_library, folder)
    _add_portfolio(folder)
    _add_controller(folder)
    return folder


@dataclass(frozen=True)
class SharesMethod:
    """A method of the caller's own: a mixture with the preference as fixed shares."""

    name: str = "shares"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """One row per expert that is wanted."""
        shares = library.preference(known)
        assert shares is not None
        wanted = [k for k, share in enumerate(shares) if share > 0]
        plan = mixture_plan(
            experts=wanted, n_experts=len(shares), shares=[float(shares[k]) for k in wanted]
        )
        named = {library.bank.names[k]: float(shares[k]) for k in wanted}
        return Decision(messages, plan, self.name, named, reason="Fixed shares.")
