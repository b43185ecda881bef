r"""What a soup reaches of an expert made for the user alone, on a real library, at equal KL.

    python -m libraries.bespoke out/board --work out/bespoke --out reports/bespoke-smollm2

`out/board` is a folder of `research.board`, whose users, prompts, judges and rows of soups are
used. A bespoke expert is made from the library's own rollouts and rewards for the user's true
preference, which no soup from comparisons knows; each reward counts in deviations of the rollouts,
as in the users' verdicts.

    closed     in closed form on the unembedding, as the library's closed experts, for every user
    trained    by the library's own training on all linear layers, for the first `--n-trained` users

For each soup the expert is scaled until both have the same mean KL per token from the base, over
states of the base's own answers, and answers the board's prompts with the board's seeds. The share
is the soup's gain over the base, by the expert's, each summed over users, in the board's utility.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from palate.build.library import stored_settings
from palate.core.files import read_json, write_folder_atomic, write_json, write_text_atomic
from palate.core.plan import parameter_soup_plan, reference_plan
from palate.core.progress import note, progress_of
from palate.core.protocols import Request
from palate.core.seeds import derive_seed, generator_for
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.library.soup import answers_to_measure
from palate.models.load import Base
from palate.training.anchors import Anchor
from palate.training.job import ExpertJob, TrainingData, TrainSettings
from palate.training.placement import HEAD, AdapterSettings
from palate.training.rollouts import read_rollouts
from palate.training.save import fill_expert_folder
from palate.training.train import rollout_data, train_expert
from research.board.command import SETTINGS
from research.board.parts import Parts
from research.board.prompts import sampling_of
from research.board.rows import ROWS, Row, append, load
from research.board.settings import BoardSettings
from research.board.tables import Tables, alone, tables_of
from research.board.users import BoardUser
from research.statistics.bespoke import ratio_interval

METHODS = "soup@10,soup@30,soup@100,soup"
CLOSED, TRAINED = "closed", "trained"
N_ANSWERS, N_PLACES = 24, 6  # of the base, and states in each
MOST = 16.0  # times an expert is enlarged
CLOSENESS = 0.02  # of the KL of a scaled expert to the soup's, as a share
BLOCK = 96  # answers between two lines of progress


def main() -> None:
    """Make the experts, answer, judge, and write `NAME.md` and `NAME.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("board", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of experts and answers")
    parser.add_argument("--out", type=Path, required=True, help="report, without an ending")
    parser.add_argument("--methods", default=METHODS, help="of the board, by comma")
    parser.add_argument("--n-users", type=int, default=None, help="the first ones; all by default")
    parser.add_argument("--n-trained", type=int, default=0, help="users with a trained expert, too")
    options = parser.parse_args()
    content: Any = read_json(options.board / SETTINGS, what="settings")
    settings = BoardSettings.checked(content, source=str(options.board / SETTINGS))
    parts = Parts(settings, options.board, 0)
    users = parts.users[: options.n_users]
    methods = options.methods.split(",")
    rows = load(options.board / ROWS, Row)
    soups = [r for r in rows if r.method in ("base", *methods) and not (r.turns or r.library)]
    study = Study(parts, methods, [row for row in soups if row.seed == 0], options.work)
    study.answer(CLOSED, users)
    study.answer(TRAINED, users[: options.n_trained])
    facts = {
        "library": parts.library.files.folder.name,
        "n_prompts": len(parts.prompts[0]),
        "methods": {
            kind: {method: compared(study, kind, method, own) for method in methods}
            for kind, own in ((CLOSED, users), (TRAINED, users[: options.n_trained]))
            if own
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out.with_suffix(".json"), facts)
    write_text_atomic(options.out.with_suffix(".md"), as_markdown(facts))


@dataclass(frozen=True)
class Scaled:
    """An expert as it answers beside one soup of its user."""

    scale: float
    kl: float  # mean per token from the base, nats, over the states
    kl_of_soup: float


@dataclass(eq=False)
class Study:
    """Soups of the board, and beside them experts that are scaled to their KL."""

    parts: Parts
    methods: Sequence[str]
    soups: Sequence[Row]  # of the base and of these methods, sampling seed 0
    work: Path
    scaled: dict[tuple[str, str, str], Scaled] = field(
        default_factory=dict[tuple[str, str, str], Scaled]
    )  # kind, method, user

    def __post_init__(self) -> None:
        """Choose the states, and read the answers that are there."""
        library = self.parts.library
        self.rows = load(self.work / ROWS, Row)
        answers = answers_to_measure(library.files, library.base, library.bank)
        chosen = [one for one in answers if len(one.answer) >= N_PLACES][:N_ANSWERS]
        self.states = States(library.base, chosen)

    def answer(self, kind: str, users: Sequence[BoardUser]) -> None:
        """Make these users' experts, scale them, and answer what is missing."""
        if not users:
            return
        folders = self.experts(kind, users)
        together = [users] if kind == CLOSED else [[user] for user in users]
        for some in together:  # experts on all layers would all run in every pass
            names = {user.name: folders[user.name] for user in some}
            with closing(AdapterBank.load(self.parts.library.base, names)) as bank:
                for method in self.methods:
                    self._answer(kind, method, some, bank)

    def experts(self, kind: str, users: Sequence[BoardUser]) -> dict[str, Path]:
        """Folders of the users' experts, made where they are missing."""
        library, folders = self.parts.library, dict[str, Path]()
        data: TrainingData | None = None
        for user in users:
            folders[user.name] = folder = self.work / kind / user.name
            if folder.exists():
                continue
            adapter, training = self._recipe(kind)
            data = data or self._data(training.method)
            note(f"the {kind} expert of {user.name}")
            anchor = self._anchor(user, data)
            job = ExpertJob(anchor, adapter, training, derive_seed(0, "bespoke"))
            model = train_expert(library.base, job, data)

            def fill(to: Path, model: Any = model, name: str = user.name) -> None:
                card = f"# {name}\n\nAn expert for one user, of the study of bespoke experts.\n"
                path = library.manifest.base.path
                fill_expert_folder(to, model=model, base_path=path, card=card)

            write_folder_atomic(folder, fill)
        return folders

    def _recipe(self, kind: str) -> tuple[AdapterSettings, TrainSettings]:
        run = stored_settings(self.parts.library.files)
        if kind == TRAINED:
            return run.adapter, run.training
        for row in run.objectives:
            own = row.expert
            if own.training is not None and own.training.method == "spectral" and own.adapter:
                return own.adapter, own.training
        return AdapterSettings(target_modules=HEAD), TrainSettings(method="spectral")

    def _data(self, method: str) -> TrainingData:
        files = self.parts.library.files
        rollouts = read_rollouts(files.rollouts_path, objectives=files.manifest.objective_names)
        return rollout_data(self.parts.library.base, rollouts, method=method, folder=self.work)

    def _anchor(self, user: BoardUser, data: TrainingData) -> Anchor:
        """The truth, each reward in deviations of the rollouts."""
        names = self.parts.library.manifest.objective_names
        spread = np.array([row.rewards for row in data.rollouts]).std(axis=0)
        wanted = np.array([user.truth.get(name, 0.0) for name in names])
        direction = wanted / np.where(spread > 0, spread, 1.0)
        shares = (direction / np.abs(direction).sum()).tolist()
        return Anchor(user.name, tuple(names), tuple(shares))

    def _answer(
        self, kind: str, method: str, users: Sequence[BoardUser], bank: AdapterBank
    ) -> None:
        name, library = f"{kind}:{method}", self.parts.library
        coefficients = {row.user: row.coefficients for row in self.soups if row.method == method}
        is_there = {row.key for row in self.rows}
        sampling = sampling_of(library, self.parts.settings)
        asked: list[tuple[BoardUser, Any, Request]] = []
        for user in users:
            soup = [coefficients[user.name].get(own, 0.0) for own in library.bank.names]
            target = self.states.kl(library.bank, soup)
            place = bank.names.index(user.name)
            scale, kl = self.states.scale_to(bank, place, target=target)
            self.scaled[kind, method, user.name] = Scaled(scale, kl, target)
            plan = parameter_soup_plan(scale * np.eye(bank.n_experts)[place])
            seed = derive_seed(0, "board", user.name)
            asked += [
                (user, one, Request(library.format(one.text), plan, sampling, seed))
                for one in self.parts.prompts[0]
                if (name, 0, user.name, one.key, 0, 0) not in is_there
            ]
        with progress_of(f"{name}, answers") as report:
            for start in range(0, len(asked), BLOCK):
                some = asked[start : start + BLOCK]
                answers = LocalEngine(library.base, bank).generate([one for *_, one in some])
                texts = [answer.text.strip() for answer in answers]
                judged = self.parts.judges.judge([one.text for _, one, _ in some], texts)
                rows = [
                    Row(
                        method=name,
                        library=0,
                        user=user.name,
                        shape=user.shape,
                        prompt=prompt.key,
                        turns=0,
                        seed=0,
                        text=texts[k],
                        n_tokens=len(answers[k].tokens),
                        n_prompt_tokens=0,
                        n_passes=1.0,
                        n_candidates=1,
                        taken=kind,
                        answer="",
                        log_prob=round(float(sum(answers[k].log_probs)), 4),
                        **vars(judged[k]),
                    )
                    for k, (user, prompt, _) in enumerate(some)
                ]
                append(self.work / ROWS, rows)
                self.rows += rows
                report(min(start + BLOCK, len(asked)), len(asked))


class States:
    """Some states of the base's own answers, on which policies' distance is measured."""

    def __init__(self, base: Base, answers: Sequence[Scored]) -> None:
        """Read what the base says there."""
        self.base = base
        self.places = [
            (one, np.linspace(0, len(one.answer) - 1, N_PLACES).astype(int).tolist())
            for one in answers
        ]
        with closing(AdapterBank(base, {})) as bare:
            self.reference = self._log_probs(bare, [])

    def kl(self, bank: AdapterBank, coefficients: Sequence[float]) -> float:
        """Mean KL per token of the soup from the base, nats."""
        return self._kl(self._log_probs(bank, coefficients))

    def scale_to(self, bank: AdapterBank, place: int, *, target: float) -> tuple[float, float]:
        """The scale of one expert at which its KL is the target, at most `MOST`, and the KL.

        The tilt of scale one gives the first guess, which is right for experts on the head.
        """
        one = np.eye(bank.n_experts)[place]
        tilt = self._log_probs(bank, one.tolist()) - self.reference
        low, high = 0.0, MOST
        for _ in range(30):
            middle = 0.5 * (low + high)
            kl = self._kl(torch.log_softmax(self.reference + middle * tilt, dim=1))
            low, high = (middle, high) if kl <= target else (low, middle)
        scale, kl = low, 0.0
        for _ in range(6):
            kl = self.kl(bank, (scale * one).tolist())
            if abs(kl - target) <= CLOSENESS * target or not kl:
                break
            scale = min(MOST, scale * (target / kl) ** 0.5)
        return scale, kl

    def _kl(self, log_probs: Tensor) -> float:
        terms = log_probs.exp() * (log_probs - self.reference)
        return float(terms.sum(dim=1).double().mean())

    def _log_probs(self, bank: AdapterBank, coefficients: Sequence[float]) -> Tensor:
        """`[states, vocab]`."""
        plan = parameter_soup_plan(coefficients) if coefficients else reference_plan(n_experts=0)
        parts = [
            row_distributions(self.base, bank, plan=plan, item=item, at=at)[0]
            for item, at in self.places
        ]
        return torch.cat(parts)


def compared(study: Study, kind: str, method: str, users: Sequence[BoardUser]) -> dict[str, Any]:
    """Gains over the base, the difference and the share, by all judges and by form alone."""
    name, wanted = f"{kind}:{method}", {user.name for user in users}
    rows = [row for row in (*study.soups, *study.rows) if row.user in wanted]
    scaled = [study.scaled[kind, method, user.name] for user in users]
    facts: dict[str, Any] = {
        "n_users": len(users),
        "kl_of_soup": float(np.mean([one.kl_of_soup for one in scaled])),
        "kl": float(np.mean([one.kl for one in scaled])),
        "scale": float(np.mean([one.scale for one in scaled])),
        "relevance": {one: _relevance(rows, one) for one in ("base", method, name)},
    }
    for label, judges in (("all", ("meaning", "form")), ("form", ("form",))):
        tables = tables_of(rows, users, judges=judges)
        gains = [gains_by_user(tables, one) for one in (method, name)]
        order = [user.name for user in users]
        soup, own = (np.array([gain[user] for user in order]) for gain in gains)
        generator = generator_for(0, "bespoke share", name, label)
        difference = tables.difference(method, name, alone)
        facts[label] = {
            "soup": _plain(tables.difference(method, "base", alone)),
            "bespoke": _plain(tables.difference(name, "base", alone)),
            "difference": _plain(difference),
            "share": (
                ratio_interval(soup, own, generator=generator).to_json()
                if own.sum() > 0 and len(users) > 1
                else None
            ),
        }
    return facts


def gains_by_user(tables: Tables, method: str) -> dict[str, float]:
    """Mean gain over the base."""
    mine, theirs, cells = tables.pairs(method, "base", alone)
    names = np.array([cell[0] for cell in cells])
    return {name: float((mine - theirs)[names == name].mean()) for name in dict.fromkeys(names)}


def _plain(difference: Any) -> dict[str, Any] | None:
    return None if difference is None else difference.interval.to_json()


def _relevance(rows: Sequence[Row], method: str) -> float:
    values = [row.relevance for row in rows if row.method == method and row.relevance is not None]
    return float(np.mean(values)) if values else float("nan")


def as_markdown(facts: Mapping[str, Any]) -> str:
    """One table for each kind of expert."""
    lines: list[str] = []
    for kind, methods in facts["methods"].items():
        n_users = next(iter(methods.values()))["n_users"]
        lines += [
            f"Library {facts['library']}, {n_users} users, {facts['n_prompts']} prompts, "
            f"sampling seed 0; experts {kind}.",
            "",
            "| soup | KL per token, nats | its gain | bespoke at this KL | soup less bespoke | "
            "share | by form alone | relevance: base, soup, bespoke |",
            "|---|" + "---|" * 7,
        ]
        for method, row in methods.items():
            every, form = row["all"], row["form"]
            relevance = ", ".join(f"{value:.2f}" for value in row["relevance"].values())
            lines.append(
                f"| {method} | {row['kl_of_soup']:.3f} | {_signed(every['soup'])} | "
                f"{_signed(every['bespoke'])} | {_signed(every['difference'])} | "
                f"{_percent(every['share'])} | {_percent(form['share'])} | {relevance} |"
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _signed(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "-"
    return f"{one['estimate']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"


def _percent(one: Mapping[str, float] | None) -> str:
    if one is None:
        return "no gain to share"
    return f"{one['estimate']:.0%} [{one['low']:.0%}, {one['high']:.0%}]"


if __name__ == "__main__":
    main()
