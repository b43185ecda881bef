"""The entrants: what each knows of a user, and how it is asked for an answer.

Every entrant is a method of `palate` or an object of a method that anybody could write; it is
answered by `Library.generate`. What is known of the user is one of

    nothing        the base
    sliders        the stated preference, in tenths
    words          the user's instruction in one of three wordings
    comparisons    N verdicts on pairs of answers, and neither words nor sliders
    words and comparisons    the short instruction, and N verdicts
"""

from collections.abc import Callable
from typing import Any

from palate import Known, Library, Method
from palate.core.errors import InvalidInputError
from palate.core.files import read_json
from palate.core.types import Belief
from research.board.comparisons import learned_name
from research.board.entrant import Entrant, Posed
from research.board.loras import CONDITIONED, EVERYBODY, OneAdapter
from research.board.parts import Parts
from research.board.rivals import RIVALS, Examples, examples_text, portfolio_of
from research.board.users import WORDINGS, BoardUser
from research.soup.rivals import OwnExpert

COMPARISONS = (0, 3, 10, 30, 100)
AUTO_COMPARISONS = LORA_COMPARISONS = (10, 100)
EXAMPLES = DESCRIBED_COMPARISONS = (3, 10)
BOTH = "words and comparisons"
SIZES = range(1, 9)  # of portfolios
NUMBER_BYTES = 4  # of a number that is stored for a user, as float32


def entrants() -> dict[str, Entrant]:
    """All entrants by name, in the order of the tables."""
    every = [
        *_prompted(),
        *_candidates(),
        *_adapters(),
        *_means(),
        *_portfolios(),
        *_soups(),
        *_learned(),
        *_described(),
        *_auto(),
    ]
    return {one.name: one for one in every}


def require_names(names: tuple[str, ...]) -> None:
    """Return when every name is an entrant's; InvalidInputError where one is not."""
    known = entrants()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InvalidInputError(
            f"The method {unknown[0]!r} is not on the board; use some of {', '.join(known)}."
        )


def _sliders(user: BoardUser) -> dict[str, Any]:
    return {"preference": dict(user.preference)}


def _slider_bytes(user: BoardUser) -> int:
    return NUMBER_BYTES * len(user.preference)


def _by_sliders(method: str, n: int | None = None) -> Callable[[Parts, BoardUser], Posed]:
    def pose(parts: Parts, user: BoardUser) -> Posed:
        return Posed(parts.library, method, _sliders(user), n, _slider_bytes(user))

    return pose


def _by_words(method: str, wording: str) -> Callable[[Parts, BoardUser], Posed]:
    def pose(parts: Parts, user: BoardUser) -> Posed:
        words = user.wordings[wording]
        return Posed(parts.library, method, {"instruction": words}, n_bytes=len(words.encode()))

    return pose


def _pose_base(parts: Parts, user: BoardUser) -> Posed:
    del user
    return Posed(parts.library, "base", {})


def _prompted() -> list[Entrant]:
    rows = [Entrant("base", "Base", "nothing", _pose_base)]
    rows.append(Entrant("prompt", "Prompt, sliders in words", "sliders", _by_sliders("prompt")))
    rows += [
        Entrant(f"prompt:{one}", f"Prompt, {_title(one)}", "words", _by_words("prompt", one))
        for one in WORDINGS
    ]
    for n in EXAMPLES:

        def pose(parts: Parts, user: BoardUser, n: int = n) -> Posed:
            text = examples_text(parts.verdicts[user.name][:n])
            method = Examples(f"examples@{n}", text)
            return Posed(parts.library, method, {}, n_bytes=len(text.encode()))

        title = f"Prompt, {n} comparisons in it"
        rows.append(Entrant(f"examples@{n}", title, "comparisons", pose, n_comparisons=n))
    return rows


def _title(wording: str) -> str:
    return {"instruction": "short instruction"}.get(wording, f"{wording} words")


def _candidates() -> list[Entrant]:
    return [
        Entrant(
            f"{method}+best-of-{n}",
            f"{'Base' if method == 'base' else 'Prompt'}, best of {n}",
            "sliders",
            _by_sliders(method, n),
            passes=float(n),
            needs=_has_rewards,
        )
        for method in ("base", "prompt")
        for n in (4, 8)
    ]


def _has_rewards(library: Library) -> bool:
    return set(library.manifest.objective_names) <= set(library.manifest.rewards)


def _adapters() -> list[Entrant]:
    rows: list[Entrant] = []
    for n in LORA_COMPARISONS:

        def pose(parts: Parts, user: BoardUser, n: int = n) -> Posed:
            library = parts.adapter_library(f"own-{n}")
            method = OneAdapter(f"lora@{n}", user.name)
            return Posed(library, method, {}, n_bytes=_adapter_bytes(library))

        title = f"One LoRA per user, {n} comparisons"
        rows.append(
            Entrant(
                f"lora@{n}",
                title,
                "comparisons",
                pose,
                is_trained=True,
                n_comparisons=n,
                adapters=f"own-{n}",
            )
        )

    def pose_everybody(parts: Parts, user: BoardUser) -> Posed:
        del user
        library = parts.adapter_library(EVERYBODY)
        return Posed(library, OneAdapter("lora-everybody", EVERYBODY), {})

    def pose_conditioned(parts: Parts, user: BoardUser) -> Posed:
        library = parts.adapter_library(CONDITIONED)
        sentence = parts.library.instruction(Known(**_sliders(user)))
        method = OneAdapter(CONDITIONED, CONDITIONED, sentence)
        return Posed(library, method, {}, n_bytes=_slider_bytes(user))

    title = "One LoRA on everybody's comparisons"
    rows += [
        Entrant(
            "lora-everybody", title, "nothing", pose_everybody, is_trained=True, adapters=EVERYBODY
        ),
        Entrant(
            CONDITIONED,
            "One policy, preference in the prompt",
            "sliders",
            pose_conditioned,
            is_trained=True,
            adapters=CONDITIONED,
        ),
    ]
    return rows


def _adapter_bytes(library: Library) -> int:
    return library.bank.n_bytes // max(1, library.bank.n_experts)


def _has_experts(library: Library) -> bool:
    return bool(library.manifest.experts)


def _has_like_experts(library: Library) -> bool:
    """Whether the factors of the experts can be averaged: same layers, rank and scale."""
    shapes: list[tuple[Any, ...]] = []
    for folder in library.files.expert_folders().values():
        config = read_json(folder / "adapter_config.json")
        layers = tuple(sorted(config["target_modules"]))
        shapes.append((layers, *(config[key] for key in ("r", "lora_alpha", "use_rslora"))))
    return bool(shapes) and len(set(shapes)) == 1


def _means() -> list[Entrant]:
    def pose_personalised(parts: Parts, user: BoardUser) -> Posed:
        library = parts.personalised(user)
        return Posed(
            library, OwnExpert("personalised-soup"), _sliders(user), None, _adapter_bytes(library)
        )

    rows = [
        Entrant(
            "personalised-soup",
            "Personalized Soups",
            "sliders",
            pose_personalised,
            is_trained=True,
            needs=_has_like_experts,
        )
    ]
    for method in RIVALS:

        def pose(parts: Parts, user: BoardUser, method: Method = method) -> Posed:
            return Posed(parts.library, method, _sliders(user), None, _slider_bytes(user))

        title = "MOD" if method.name == "mod" else "Rewarded soup"
        passes = 3.0 if method.name == "mod" else 1.0
        rows.append(
            Entrant(
                method.name,
                title,
                "sliders",
                pose,
                is_trained=True,
                passes=passes,
                needs=_has_experts,
            )
        )
    return rows


def _portfolios() -> list[Entrant]:
    rows: list[Entrant] = []
    for size in SIZES:

        def pose(parts: Parts, user: BoardUser, size: int = size) -> Posed:
            method = portfolio_of(parts.library, size)
            return Posed(parts.library, method, _sliders(user), None, _slider_bytes(user))

        def needs(library: Library, size: int = size) -> bool:
            portfolio = library.portfolio
            return portfolio is not None and size <= portfolio.record.payoffs.n_policies

        rows.append(
            Entrant(
                f"portfolio-{size}",
                f"Portfolio of {size}",
                "sliders",
                pose,
                is_ours=True,
                is_trained=True,
                needs=needs,
            )
        )
    return rows


def _soups() -> list[Entrant]:
    titles = {
        "soup": ("Soup", 1.0),
        "prompted-soup": ("Prompted soup", 1.0),
        "output-soup": ("Output soup", 4.0),
        "implicit-soup": ("Implicit soup", 4.0),
        "mixture": ("Mixture", 3.0),
    }
    return [
        Entrant(
            name,
            title,
            "sliders",
            _by_sliders(name),
            is_ours=True,
            is_trained=True,
            passes=passes,
            needs=_has_controller if name == "mixture" else _has_experts,
        )
        for name, (title, passes) in titles.items()
    ]


def _has_controller(library: Library) -> bool:
    return library.controller is not None


def _learned() -> list[Entrant]:
    """The soup of what a store has learned, and what `auto` serves a user of that store."""
    rows: list[Entrant] = []
    for method, title, counts in (
        ("soup", "Soup", COMPARISONS),
        ("auto", "Auto", AUTO_COMPARISONS),
    ):
        for n in counts:

            def pose(parts: Parts, user: BoardUser, method: str = method, n: int = n) -> Posed:
                belief = parts.library.soups.prior()
                if n:
                    belief = parts.store.known(learned_name(user.name, n)).belief or belief
                return Posed(
                    parts.library, method, {"belief": belief}, n_bytes=_belief_bytes(belief)
                )

            rows.append(
                Entrant(
                    f"{method}@{n}",
                    f"{title}, learned from {n} comparisons",
                    "comparisons",
                    pose,
                    is_ours=True,
                    is_trained=True,
                    n_comparisons=n,
                    needs=_has_experts,
                )
            )
    return rows


def _belief_bytes(belief: Belief) -> int:
    """Of the mean and the upper triangle of the covariance."""
    size = len(belief.mean)
    return NUMBER_BYTES * (size + size * (size + 1) // 2)


def _reads_words(library: Library) -> bool:
    """Whether some objective has an opposite, and the sentence embedder is installed."""
    try:
        return _has_experts(library) and bool(library.describe("Be brief."))
    except InvalidInputError:
        return False


def _described() -> list[Entrant]:
    """What `auto` serves a user of the store who said it in words before the comparisons."""
    rows: list[Entrant] = []
    wording = WORDINGS[0]
    for n in DESCRIBED_COMPARISONS:

        def pose(parts: Parts, user: BoardUser, n: int = n) -> Posed:
            known = parts.store.known(learned_name(user.name, n, is_described=True))
            belief = known.belief or parts.library.soups.prior()
            n_bytes = _belief_bytes(belief) + len(user.wordings[wording].encode())
            fields = {"belief": belief, "instruction": known.instruction}
            return Posed(parts.library, "auto", fields, n_bytes=n_bytes)

        rows.append(
            Entrant(
                f"auto:{wording}@{n}",
                f"Auto, {_title(wording)} and {n} comparisons",
                BOTH,
                pose,
                is_ours=True,
                is_trained=True,
                n_comparisons=n,
                wording=wording,
                needs=_reads_words,
            )
        )
    return rows


def _auto() -> list[Entrant]:
    rows = [Entrant("auto", "Auto", "sliders", _by_sliders("auto"), is_ours=True, is_trained=True)]
    rows += [
        Entrant(
            f"auto:{one}",
            f"Auto, {_title(one)}",
            "words",
            _by_words("auto", one),
            is_ours=True,
            is_trained=True,
        )
        for one in WORDINGS
    ]

    def pose(parts: Parts, user: BoardUser) -> Posed:
        known = {**_sliders(user), "max_passes": 4.0}
        return Posed(parts.library, "auto", known, None, _slider_bytes(user))

    title = "Auto, at most 4 passes"
    rows.append(
        Entrant(
            "auto+4-passes",
            title,
            "sliders",
            pose,
            is_ours=True,
            is_trained=True,
            passes=4.0,
        )
    )
    return rows
