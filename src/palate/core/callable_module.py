"""A package that can be called: `palate.build` and `palate.evaluate` are folders and functions.

Importing anything below a package binds the package's name in its parent, in place of a function of
that name. So the package itself takes the call, and imports the function then.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from palate.core.extras import missing_extra


class CallableModule(ModuleType):
    """A module whose call is that of a function elsewhere."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        return self.__function__(*arguments, **named)

    @property
    def __function__(self) -> Any:
        """The function itself."""
        module, _, name = self.__dict__["__calls__"].partition(":")
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise (missing_extra(error, what=self.__name__) or error) from error

    @property
    def __signature__(self) -> Any:
        """For `inspect.signature` and `help`."""
        from inspect import signature

        return signature(self.__function__)


def make_callable(package: str, *, calls: str) -> None:
    """Let calls of a package, given by its `__name__`, go to the function `module:function`."""
    module = sys.modules[package]
    module.__dict__["__calls__"] = calls
    module.__class__ = CallableModule
