"""`portfolio`: the certified member that is worth most to the user.

Source: PALM, arXiv 2604.04144.
"""

import numpy as np

from palate.core.decision import Decision, Known, Messages
from palate.core.errors import InvalidInputError
from palate.library.library import Library
from palate.library.portfolio import LibraryPortfolio


class PortfolioMethod:
    """One member of the library's portfolio."""

    name = "portfolio"

    def decide(self, library: Library, messages: Messages, known: Known) -> Decision:
        """The member's plan with what the certificate says of it.

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
        route = portfolio.route(shares)
        named = dict(portfolio.policies[route.member].coefficients)
        return Decision(
            messages,
            route.plan,
            self.name,
            named,
            reason=portfolio.reason(route),
            certified_loss=route.loss,
        )

    def _unknown(self, portfolio: LibraryPortfolio, messages: Messages) -> Decision:
        losses = portfolio.lone_losses()
        place = int(np.argmin(losses))
        loss, name = float(losses[place]), portfolio.router.names[place]
        is_bound = portfolio.record.certified.certificate.kind == "worst-case"
        against = (
            ""
            if is_bound
            else f"relative to the {portfolio.record.payoffs.n_policies} listed policies, "
        )
        said = (
            f"{against}member {name!r} alone costs a user at most {loss:.3f}, the least of all"
            if np.isfinite(loss)
            else f"member {name!r} is the only listed policy, and nothing is known beyond it"
        )
        return Decision(
            messages,
            portfolio.router.plans[place],
            self.name,
            dict(portfolio.policies[name].coefficients),
            reason=f"Nothing is known of the user; {said}.",
            certified_loss=loss if np.isfinite(loss) else None,
        )
