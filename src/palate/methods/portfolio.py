"""`portfolio`: the certified member that is worth most to the user.

Source: PALM, arXiv 2604.04144.
"""

import numpy as np

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.core.files import hash_bytes
from palate.library.folder import LibraryFolder
from palate.library.library import Library
from palate.library.portfolio import PORTFOLIO, LibraryPortfolio


class PortfolioMethod:
    """One member of the library's portfolio."""

    name = "portfolio"

    def can_serve(self, library: Library) -> bool:
        """Whether there is a portfolio."""
        return library.portfolio is not None

    def part_key(self, files: LibraryFolder) -> str:
        """Hash of the portfolio."""
        path = files.folder / PORTFOLIO
        return hash_bytes(path.read_bytes()) if path.is_file() else ""

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The member's plan with its certificate.

        With nothing known, the member by which the user who fares worst loses least.

        Raises:
            InvalidInputError: the library has no portfolio.
        """
        portfolio = library.portfolio
        if portfolio is None:
            raise InvalidInputError(
                f"The library {library.files.folder.name!r} has no portfolio.json; make one with "
                "'palate portfolio select', or use another method."
            )
        shares = library.preference(known)
        if shares is None:
            return self._unknown(portfolio, messages)
        route = portfolio.router.route(shares)
        return Decision(
            messages,
            route.plan,
            self.name,
            dict(portfolio.policies[route.member].coefficients),
            reason=portfolio.reason(route),
            certified_loss=route.loss,
        )

    def _unknown(self, portfolio: LibraryPortfolio, messages: Messages) -> Decision:
        losses = portfolio.lone_losses()
        place = int(np.argmin(losses))
        loss, name = float(losses[place]), portfolio.router.names[place]
        if np.isfinite(loss):
            is_bound = portfolio.record.certified.certificate.kind == "worst-case"
            listed = f"relative to the {portfolio.record.payoffs.n_policies} listed policies, "
            why = (
                f"{'' if is_bound else listed}member {name!r} alone costs a user at most "
                f"{loss:.3f}, the least of all"
            )
        else:
            why = f"member {name!r} is the only listed policy, and nothing is known beyond it"
        return Decision(
            messages,
            portfolio.router.plans[place],
            self.name,
            dict(portfolio.policies[name].coefficients),
            reason=f"Nothing is known of the user; {why}.",
            certified_loss=loss if np.isfinite(loss) else None,
        )
