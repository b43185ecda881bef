"""The table of methods that ship, by name. A new method is one file and one line."""

from palate.core.decision import Method
from palate.core.plan import output_soup_plan, parameter_soup_plan
from palate.library.knowledge import can_serve
from palate.library.library import Library
from palate.methods.auto import AutoMethod
from palate.methods.mixture import MixtureMethod
from palate.methods.portfolio import PortfolioMethod
from palate.methods.prompt import BaseMethod, BestOfNMethod, PromptMethod
from palate.methods.soup import SoupMethod, implicit_soup_plan

ALL: tuple[Method, ...] = (
    AutoMethod(),
    BaseMethod(),
    PromptMethod(),
    BestOfNMethod(),
    PortfolioMethod(),
    SoupMethod("soup", parameter_soup_plan),
    SoupMethod("prompted-soup", parameter_soup_plan, is_prompted=True),
    SoupMethod("output-soup", output_soup_plan),
    SoupMethod("implicit-soup", implicit_soup_plan),
    MixtureMethod(),
)

METHODS: dict[str, Method] = {method.name: method for method in ALL}


def available_methods(library: Library) -> tuple[str, ...]:
    """Names of the library's methods whose parts it has, methods of the caller's own included."""
    return tuple(name for name in library.methods if can_serve(library, name))
