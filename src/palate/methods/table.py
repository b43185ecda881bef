"""The table of methods: every method that ships, by name. A new one is one file and one line."""

from palate.core.decision import Method
from palate.library.knowledge import can_serve
from palate.library.library import Library
from palate.methods.auto import AutoMethod
from palate.methods.base import BaseMethod
from palate.methods.best_of_n import BestOfNMethod
from palate.methods.mixture import MixtureMethod
from palate.methods.output_soup import ImplicitSoupMethod, OutputSoupMethod
from palate.methods.portfolio import PortfolioMethod
from palate.methods.prompt import PromptMethod
from palate.methods.soup import PromptedSoupMethod, SoupMethod

ALL: tuple[Method, ...] = (
    AutoMethod(),
    BaseMethod(),
    PromptMethod(),
    BestOfNMethod(),
    PortfolioMethod(),
    SoupMethod(),
    PromptedSoupMethod(),
    OutputSoupMethod(),
    ImplicitSoupMethod(),
    MixtureMethod(),
)

METHODS: dict[str, Method] = {method.name: method for method in ALL}


def available_methods(library: Library) -> tuple[str, ...]:
    """Names of the library's methods whose parts it has, methods of the caller's own included."""
    return tuple(name for name in library.methods if can_serve(library, name))
