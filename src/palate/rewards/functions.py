"""Rewards that are Python functions, of the signature that TRL's trainers take.

    def brief(prompts, completions, **columns):
        return [-float(len(text)) for text in completions]

A function gives one number for each completion, in any unit, or `None` where the objective does not
apply. Its numbers are put on a scale in [0, 1] that is fitted once, on answers of the frozen base;
`None` counts as the mean of these. On disk there is the function's address, never its code: it is
imported again when the library is opened, and compared with the hash of what taught.

Finished reward models and judges that grade are such functions, too; they are made anew from what
the run file says of them, their `source`, and compared by their `fingerprint`.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter

from palate.core.errors import FormatError, InvalidInputError
from palate.core.files import hash_bytes, hash_value, read_versioned, reading, write_versioned
from palate.rewards.scale import Scale, ScaleKind, fit_scale, require_rewards
from palate.rewards.settings import GradeSettings
from palate.rewards.texts import require_equally_many

RewardFunction = Callable[..., Sequence[float | None]]
"""`(prompts, completions, **columns)` to one number, or `None`, for each completion."""


@runtime_checkable
class SourcedFunction(Protocol):
    """A reward function that is made from plain data."""

    @property
    def source(self) -> dict[str, object]:
        """`{"model": ...}` or `{"judge": ...}`, as in a run file."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything a score depends on."""
        ...

    def __call__(
        self, prompts: Sequence[str], completions: Sequence[str], **columns: object
    ) -> list[float]:
        """One number for each completion."""
        ...


FILE = "function.json"
KIND, VERSION = "palate-reward-function", 1

_SCALE: TypeAdapter[Scale] = TypeAdapter(Scale)


@dataclass(frozen=True, eq=False)
class FunctionReward:
    """A function with its scale; `None` counts as the mean of the base's answers."""

    objective: str
    function: RewardFunction
    scale: Scale
    mean: float

    @property
    def fingerprint(self) -> str:
        """Hash of everything that a score depends on: the function and its scale."""
        return hash_value([identity_of(self.function), self.scale.model_dump(), self.mean])

    def raw(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """`[texts]`: the function's own numbers; higher is better."""
        numbers = function_values(self.function, prompts, answers, objective=self.objective)
        return np.where(np.isnan(numbers), self.mean, numbers)

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Float[np.ndarray, " texts"]:
        """Rewards in [0, 1], `[texts]`; raises as `function_values`."""
        scores = self.scale.apply(self.raw(prompts, answers))
        return require_rewards(scores, objective=self.objective)

    def save(self, folder: Path) -> None:
        """Write `function.json` into the folder: the function's address and hash, and the scale."""
        content = {
            "objective": self.objective,
            "function": address_of(self.function),
            "hash": identity_of(self.function),
            "source": self.function.source if isinstance(self.function, SourcedFunction) else None,
            "mean": self.mean,
            "scale": self.scale.model_dump(mode="json"),
        }
        write_versioned(folder / FILE, kind=KIND, version=VERSION, content=content)


def fit_function(
    function: RewardFunction,
    *,
    objective: str,
    prompts: Sequence[str],
    answers: Sequence[str],
    kind: ScaleKind = "logistic",
) -> FunctionReward:
    """The function on a scale fitted on these answers of the frozen base model.

    Raises:
        InvalidInputError: the function does not give one finite number or `None` for each answer,
            or its numbers do not differ.
    """
    numbers = function_values(function, prompts, answers, objective=objective)
    given = numbers[~np.isnan(numbers)]
    if len(np.unique(given)) < 2:
        value = f"the same number {given[0]:g}" if given.size else "None"
        raise InvalidInputError(
            f"The reward function of {objective!r} gives {value} for each of the {len(answers)} "
            "answers of the base, so it teaches nothing; let it rank answers."
        )
    return FunctionReward(objective, function, fit_scale(given, kind=kind), float(given.mean()))


def function_values(
    function: RewardFunction, prompts: Sequence[str], answers: Sequence[str], *, objective: str
) -> Float[np.ndarray, " texts"]:
    """`[texts]`: the function's numbers, `None` as NaN; InvalidInputError where one is missing."""
    require_equally_many(prompts, answers)
    result = cast(Any, function(prompts=list(prompts), completions=list(answers)))
    if not hasattr(result, "__len__") or isinstance(result, str | bytes | Mapping):
        raise InvalidInputError(
            f"The reward function of {objective!r} gave a {type(result).__name__}; let it give a "
            "list with one number, or None, for each completion."
        )
    if len(result) != len(answers):
        raise InvalidInputError(
            f"The reward function of {objective!r} gave {len(result)} values for {len(answers)} "
            "completions; let it give one for each."
        )
    return np.array([_number(value, objective, place) for place, value in enumerate(result)])


def load_function(
    folder: Path, *, objective: str, given: Mapping[str, RewardFunction]
) -> FunctionReward:
    """The reward of a folder's `function.json`.

    Functions that are given, by objective, take precedence over the one that the file names.

    Raises:
        FormatError: the file is garbled, or the function not importable or not the one that taught.
    """
    content = read_versioned(folder / FILE, kind=KIND, version=VERSION)
    with reading(folder / FILE, remedy="build the library again"):
        scale, mean = _SCALE.validate_python(content["scale"]), float(content["mean"])
        address, digest = content["function"], content["hash"]
    if objective in given:
        return FunctionReward(objective, given[objective], scale, mean)
    source = content.get("source")
    function = function_from(source) if source else _imported(str(address or ""))
    if function is None:
        where = "which has no address" if address is None else f"{address!r}, not importable here"
        raise FormatError(
            f"The reward of {objective!r} is a Python function, {where}; give it to "
            f"`Library.load(..., reward_funcs={{{objective!r}: function}})`."
        )
    if identity_of(function) != digest:
        raise FormatError(
            f"The reward function {address!r} of {objective!r} was changed since the library was "
            "built with it; build again, or give the function of then in `reward_funcs`."
        )
    return FunctionReward(objective, function, scale, mean)


def stored_function(folder: Path) -> RewardFunction | None:
    """The function that a reward folder names; `None` where it cannot be imported."""
    if not (folder / FILE).is_file():
        return None
    address = read_versioned(folder / FILE, kind=KIND, version=VERSION).get("function")
    return None if address is None else _imported(str(address))


def identity_of(function: object) -> str:
    """Hash of the function's source code and of the plain values it closes over.

    A function with a `source` knows its hash itself. Values of other kinds (a model, an open file)
    are not read; name the objective anew, or use another folder, where only these change.
    """
    if isinstance(function, SourcedFunction):
        return function.fingerprint
    if isinstance(function, partial):
        bound = [repr(_plain(value)) for value in (*function.args, *function.keywords.items())]
        return hash_value([identity_of(function.func), bound])
    code = function if inspect.isroutine(function) else type(function)
    try:
        source = inspect.getsource(code)
    except (OSError, TypeError):  # built in, or typed at a prompt
        source = f"{getattr(code, '__module__', '')}:{getattr(code, '__qualname__', '')}"
    state = [repr(_plain(value)) for value in _bound_values(function)]
    return hash_value([hash_bytes(source.encode()), state])


def address_of(function: RewardFunction) -> str | None:
    """`module:qualname` where importing that gives this very function again, else `None`."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None)
    if not module or not name or module == "__main__" or "<" in name:
        return None
    address = f"{module}:{name}"
    return address if module in sys.modules and _imported(address) is function else None


def require_functions(
    functions: Mapping[str, RewardFunction], *, objectives: Sequence[str]
) -> None:
    """Raise `InvalidInputError` for an unknown objective and for what cannot be called."""
    for name, function in functions.items():
        if name not in objectives:
            raise InvalidInputError(
                f"There is a reward function for the unknown objective {name!r}; known are "
                f"{', '.join(objectives)}."
            )
        if not callable(function):
            raise InvalidInputError(
                f"The reward function of {name!r} is a {type(function).__name__}; give a function "
                "of prompts and completions."
            )


def function_at(address: str) -> RewardFunction:
    """The callable at `module:name`; InvalidInputError where none can be imported."""
    function = _imported(address)
    if function is None:
        raise InvalidInputError(
            f"{address!r} cannot be imported or called; write 'module:function', and put the "
            "module's folder on PYTHONPATH."
        )
    return function


def function_from(source: Mapping[str, Any]) -> SourcedFunction:
    """The reward model, or judge, of `{"model": NAME_OR_FOLDER}` or `{"judge": GRADE_SETTINGS}`.

    Raises:
        InvalidInputError: the model is not there, or a setting or the judge's cache is wrong.
        FormatError: what is there is no sequence classifier with one output.
    """
    if "model" in source:
        from palate.rewards.classifier import FinishedModel  # torch takes seconds to import

        return FinishedModel.load(str(source["model"]))
    from palate.rewards.judge import Grader  # needs openai

    return Grader(GradeSettings.checked(source.get("judge"), source="the judge of a reward"))


def _imported(address: str) -> RewardFunction | None:
    module, _, name = address.partition(":")
    try:
        function = attrgetter(name)(import_module(module))
    except Exception:  # noqa: BLE001  a user's module may fail in any way; then it is not importable
        return None
    return cast(RewardFunction, function) if callable(function) else None


def _number(value: object, objective: str, place: int) -> float:
    """The value as a number, `None` as NaN."""
    if value is None:
        return float("nan")
    try:
        number = float("nan") if isinstance(value, str | bytes) else float(cast(Any, value))
    except (TypeError, ValueError):
        number = float("nan")
    if not np.isfinite(number):
        raise InvalidInputError(
            f"The reward function of {objective!r} gave {str(value)[:40]!r} for completion "
            f"{place}; let it give a finite number, or None where the objective does not apply."
        )
    return number


def _bound_values(function: Any) -> list[object]:
    """The values that the function closes over, its defaults, and the attributes of an object."""
    routine = getattr(function, "__func__", function)
    cells: list[object] = []
    for cell in getattr(routine, "__closure__", None) or ():
        with suppress(ValueError):  # an empty cell: the name is not bound yet
            cells.append(cell.cell_contents)
    owner = getattr(function, "__self__", None) if routine is not function else function
    state = getattr(owner, "__dict__", {}) if not inspect.isfunction(owner) else {}
    defaults = [getattr(routine, name, None) for name in ("__defaults__", "__kwdefaults__")]
    return [*cells, *defaults, dict(sorted(state.items()))]


def _plain(value: object) -> object:
    """The value without parts that have no lasting text, such as an object's address."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        items = [_plain(one) for one in cast(Sequence[object], value)]
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, Mapping):
        return [
            (str(key), _plain(one)) for key, one in cast(Mapping[object, object], value).items()
        ]
    return type(value).__qualname__
