r"""What a soup reaches of an expert made for the user alone, on a real library, at equal KL.

    python -m libraries.bespoke out/board --work out/bespoke --out reports/bespoke-smollm2

`out/board` is a folder of `research.board`, whose users, prompts, judges and rows of soups are
used. A bespoke expert is made from the library's own rollouts and rewards for the user's true
preference, which no soup from comparisons knows; each reward counts in deviations of the rollouts,
as in the users' verdicts.

    closed     in closed form on the unembedding, as the library's closed experts, for every user
    trained    by the library's own training on all linear layers, for the first `--n-trained` users

For each soup the expert is scaled until both have the same mean KL per token from the base, at the
temperature of sampling, over states of the base's answers to the board's prompts, and answers these
prompts with the board's seeds. The share is the soup's gain over the base, by the expert's, each
summed over users, in the board's utility over these users; it is given where the expert's gain is
above zero. A soup that stays with the base has an expert that does, too.
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
from palate.core.errors import InvalidInputError
from palate.core.files import (
    append_jsonl,
    hash_value,
    read_json,
    read_jsonl,
    write_folder_atomic,
    write_json,
    write_text_atomic,
)
from palate.core.plan import parameter_soup_plan, reference_plan
from palate.core.progress import note, progress_of
from palate.core.protocols import Request
from palate.core.seeds import derive_seed, generator_for
from palate.engine.bank import AdapterBank
from palate.engine.local import LocalEngine
from palate.engine.logprobs import Scored, row_distributions
from palate.library.features import scored_text
from palate.library.generate import answer_seed
from palate.models.load import Base
from palate.training.anchors import Anchor
from palate.training.job import ExpertJob, TrainingData, TrainSettings
from palate.training.placement import HEAD, AdapterSettings
from palate.training.rollouts import Rollout, read_rollouts
from palate.training.save import fill_expert_folder
from palate.training.train import rollout_data, train_expert
from research.board.command import SETTINGS
from research.board.parts import Parts
from research.board.prompts import sampling_of
from research.board.rows import ROWS, Row, load
from research.board.settings import BoardSettings
from research.board.tables import Tables, alone, tables_of
from research.board.users import BoardUser
from research.statistics.bespoke import ratio_interval

METHODS = "soup@10,soup@30,soup@100,soup"
CLOSED, TRAINED = "closed", "trained"
N_ANSWERS, N_PLACES = 12, 12  # of the base, and states in each
MOST = 16.0  # times an expert is enlarged
CLOSENESS = 0.02  # of the KL of a scaled expert to the soup's, as a share
OFF = 0.05  # share from which on a user counts as one whose expert misses the KL
TINY = 1e-6  # nats per token: nothing to scale to
ANSWERS = "answers.jsonl"
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
    study.require_rows(users)
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
    folders: dict[tuple[str, str], Path] = field(
        default_factory=dict[tuple[str, str], Path]
    )  # kind, user

    def __post_init__(self) -> None:
        """Choose the states, and read the answers that are there."""
        library, path = self.parts.library, self.work / ANSWERS
        self.rows = list[Row]()
        rows = read_jsonl(path, what="answers") if path.is_file() else []
        self.texts = {str(row["key"]): row for row in rows}
        self.sampling = sampling_of(library, self.parts.settings)
        texts = {one.key: one.text for one in self.parts.prompts[0]}
        base = [row for row in self.soups if row.method == "base"]
        scored = [
            scored_text(library.base, texts[row.prompt], row.text)
            for row in base
            if row.user == base[0].user
        ]
        long = [one for one in scored if len(one.answer) >= N_PLACES][:N_ANSWERS]
        if not long:
            raise InvalidInputError(
                "The board has no answer of the base with "
                f"{N_PLACES} tokens or more; let it answer first, or unpack its rows."
            )
        self.states = States(library.base, long, temperature=self.sampling.temperature)

    def require_rows(self, users: Sequence[BoardUser]) -> None:
        """Return where every user has rows of every soup and of the base."""
        there = {(row.method, row.user) for row in self.soups}
        for method in ("base", *self.methods):
            for user in users:
                if (method, user.name) not in there:
                    raise InvalidInputError(
                        f"The board has no row of {method!r} for {user.name!r}; let it answer "
                        "first, or leave the method out of --methods."
                    )

    def answer(self, kind: str, users: Sequence[BoardUser]) -> None:
        """Make these users' experts, scale them, and answer what is missing."""
        if not users:
            return
        folders = self.experts(kind, users)
        self.folders |= {(kind, name): folder for name, folder in folders.items()}
        together = [users] if kind == CLOSED else [[user] for user in users]
        for some in together:  # experts on all layers would all run in every pass
            names = {user.name: folders[user.name] for user in some}
            with closing(AdapterBank.load(self.parts.library.base, names)) as bank:
                for user in some:  # all its scales together: its tilt is measured once
                    self._scale(kind, user, bank)
                for method in self.methods:
                    self._answer(kind, method, some, bank)

    def experts(self, kind: str, users: Sequence[BoardUser]) -> dict[str, Path]:
        """Folders of the users' experts, made where they are missing."""
        library, folders = self.parts.library, dict[str, Path]()
        adapter, training = self._recipe(kind)
        files, base = library.files, library.base
        names = library.manifest.objective_names
        rollouts = read_rollouts(files.rollouts_path, objectives=names)
        data: TrainingData | None = None
        for user in users:
            anchor = self._anchor(user, rollouts)
            seed = derive_seed(0, "bespoke")
            recipe = [adapter.model_dump(mode="json"), training.model_dump(mode="json"), seed]
            rewards = library.manifest.to_json()["rewards"]
            key = hash_value([base.fingerprint, anchor.to_json(), recipe, rewards, len(rollouts)])
            folders[user.name] = folder = self.work / kind / f"{user.name}-{key[:12]}"
            if folder.exists():
                continue
            if data is None:
                data = rollout_data(base, rollouts, method=training.method, folder=self.work)
            note(f"the {kind} expert of {user.name}")
            model = train_expert(base, ExpertJob(anchor, adapter, training, seed), data)

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

    def _anchor(self, user: BoardUser, rollouts: Sequence[Rollout]) -> Anchor:
        """The truth, each reward in deviations of the rollouts."""
        names = self.parts.library.manifest.objective_names
        spread = np.array([row.rewards for row in rollouts]).std(axis=0)
        wanted = np.array([user.truth.get(name, 0.0) for name in names])
        direction = wanted / np.where(spread > 0, spread, 1.0)
        shares = (direction / np.abs(direction).sum()).tolist()
        return Anchor(user.name, tuple(names), tuple(shares))

    def _scale(self, kind: str, user: BoardUser, bank: AdapterBank) -> None:
        library = self.parts.library
        for method in self.methods:
            given = next(
                row.coefficients
                for row in self.soups
                if (row.method, row.user) == (method, user.name)
            )
            soup = [given.get(name, 0.0) for name in library.bank.names]
            target = self.states.kl(library.bank, soup)
            place = bank.names.index(user.name)
            scale, kl = self.states.scale_to(bank, place, target=target)
            self.scaled[kind, method, user.name] = Scaled(scale, kl, target)
            note(
                f"{user.name}: {method} has {target:.3f} nats a token, the expert times {scale:.2f}"
            )

    def _answer(
        self, kind: str, method: str, users: Sequence[BoardUser], bank: AdapterBank
    ) -> None:
        name, library = f"{kind}:{method}", self.parts.library
        asked: dict[tuple[str, str], tuple[str, Request]] = {}
        for user in users:
            place = bank.names.index(user.name)
            scale = self.scaled[kind, method, user.name].scale
            plan = parameter_soup_plan((scale * np.eye(bank.n_experts)[place]).tolist())
            seed = answer_seed(derive_seed(0, "board", user.name))
            for prompt in self.parts.prompts[0]:
                text = library.format(prompt.text)
                facts = [library.base.fingerprint, self.folders[kind, user.name].name, text]
                facts += [round(scale, 4), vars(self.sampling), seed]
                key = hash_value(facts)[:20]
                asked[user.name, prompt.key] = key, Request(text, plan, self.sampling, seed)
        missing = [one for one in asked.values() if one[0] not in self.texts]
        with progress_of(f"{name}, answers") as report:
            for start in range(0, len(missing), BLOCK):
                some = missing[start : start + BLOCK]
                answers = LocalEngine(library.base, bank).generate([one for _, one in some])
                rows = [
                    {
                        "key": key,
                        "text": answer.text.strip(),
                        "n_tokens": len(answer.tokens),
                        "log_prob": round(float(sum(answer.log_probs)), 4),
                    }
                    for (key, _), answer in zip(some, answers, strict=True)
                ]
                append_jsonl(self.work / ANSWERS, rows)
                self.texts |= {str(row["key"]): row for row in rows}
                report(min(start + BLOCK, len(missing)), len(missing))
        self._judge(name, kind, {place: key for place, (key, _) in asked.items()})

    def _judge(self, name: str, kind: str, keys: Mapping[tuple[str, str], str]) -> None:
        prompts = {one.key: one.text for one in self.parts.prompts[0]}
        shapes = {user.name: user.shape for user in self.parts.users}
        texts = [str(self.texts[key]["text"]) for key in keys.values()]
        judged = self.parts.judges.judge([prompts[prompt] for _, prompt in keys], texts)
        for ((user, prompt), key), judgment in zip(keys.items(), judged, strict=True):
            row = self.texts[key]
            self.rows.append(
                Row(
                    method=name,
                    library=0,
                    user=user,
                    shape=shapes[user],
                    prompt=prompt,
                    turns=0,
                    seed=0,
                    text=str(row["text"]),
                    n_tokens=int(row["n_tokens"]),
                    n_prompt_tokens=0,
                    n_passes=1.0,
                    n_candidates=1,
                    taken=kind,
                    answer=key,
                    log_prob=float(row["log_prob"]),
                    **vars(judgment),
                )
            )


class States:
    """Some states of the base's own answers, on which policies' distance is measured."""

    def __init__(self, base: Base, answers: Sequence[Scored], *, temperature: float) -> None:
        """Read what the base says there."""
        self.base, self.temperature = base, temperature
        self.places = [
            (one, np.linspace(0, len(one.answer) - 1, N_PLACES).astype(int).tolist())
            for one in answers
        ]
        self._tilt: tuple[tuple[AdapterBank, int] | None, Tensor] = None, torch.empty(0)
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
        if self._tilt[0] != (bank, place):
            self._tilt = (bank, place), self._log_probs(bank, one.tolist()) - self.reference
        tilt, (low, high), kl = self._tilt[1], (0.0, MOST), 0.0
        for _ in range(30):
            middle = 0.5 * (low + high)
            kl = self._kl(torch.log_softmax(self.reference + middle * tilt, dim=1))
            low, high = (middle, high) if kl <= target else (low, middle)
        scale = low
        is_exact = not any(bank.before_head(one.tolist()))
        tilted = torch.log_softmax(self.reference + scale * tilt, dim=1)
        kl = self._kl(tilted) if is_exact else self.kl(bank, (scale * one).tolist())
        for _ in range(0 if is_exact else 6):
            if abs(kl - target) <= CLOSENESS * target or min(kl, target) <= TINY:
                break
            scale = min(MOST, scale * (target / kl) ** 0.5)
            kl = self.kl(bank, (scale * one).tolist())
        return scale, kl

    def _kl(self, log_probs: Tensor) -> float:
        terms = log_probs.exp() * (log_probs - self.reference)
        return max(0.0, float(terms.sum(dim=1).double().mean()))

    def _log_probs(self, bank: AdapterBank, coefficients: Sequence[float]) -> Tensor:
        """`[states, vocab]`."""
        plan = parameter_soup_plan(coefficients) if coefficients else reference_plan(n_experts=0)
        parts = [
            row_distributions(self.base, bank, plan=plan, item=item, at=at)[0]
            for item, at in self.places
        ]
        return torch.log_softmax(torch.cat(parts) / self.temperature, dim=1)


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
        "n_off": sum(abs(one.kl - one.kl_of_soup) > OFF * one.kl_of_soup for one in scaled),
        "relevance": {one: _relevance(rows, one) for one in ("base", method, name)},
    }
    wanted_judges: list[tuple[str, tuple[str, ...]]] = [("all", ("meaning", "form"))]
    if set(study.parts.library.manifest.objective_names) <= set(study.parts.judges.form):
        wanted_judges.append(("form", ("form",)))
    for label, judges in wanted_judges:
        tables = tables_of(rows, users, judges=judges)
        gains = [gains_by_user(tables, one) for one in (method, name)]
        order = [user.name for user in users]
        soup, own = (np.array([gain[user] for user in order]) for gain in gains)
        generator = generator_for(0, "bespoke share", name, label)
        gained = tables.difference(name, "base", alone)
        has_share = gained is not None and gained.interval.low > 0 and len(users) > 1
        facts[label] = {
            "soup": _plain(tables.difference(method, "base", alone)),
            "bespoke": _plain(gained),
            "difference": _plain(tables.difference(method, name, alone)),
            "share": (
                ratio_interval(soup, own, generator=generator).to_json() if has_share else None
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


def _relevance(rows: Sequence[Row], method: str) -> float | None:
    values = [row.relevance for row in rows if row.method == method and row.relevance is not None]
    return float(np.mean(values)) if values else None


def as_markdown(facts: Mapping[str, Any]) -> str:
    """One table for each kind of expert."""
    lines: list[str] = []
    for kind, methods in facts["methods"].items():
        n_users = next(iter(methods.values()))["n_users"]
        lines += [
            f"Library {facts['library']}, {n_users} users, {facts['n_prompts']} prompts, "
            f"sampling seed 0; experts {kind}.",
            "",
            "| soup | KL per token, nats: its own, the expert's | users that miss it | scale | "
            "its gain | the expert's | soup less expert | share | by form alone | "
            "relevance: base, soup, expert |",
            "|---|" + "---|" * 9,
        ]
        for method, row in methods.items():
            every, form = row["all"], row.get("form", {})
            found = row["relevance"].values()
            relevance = ", ".join("-" if value is None else f"{value:.2f}" for value in found)
            lines.append(
                f"| {method} | {row['kl_of_soup']:.3f}, {row['kl']:.3f} | {row['n_off']} | "
                f"{row['scale']:.2f} | {_signed(every['soup'])} | "
                f"{_signed(every['bespoke'])} | {_signed(every['difference'])} | "
                f"{_percent(every['share'])} | {_percent(form.get('share'))} | {relevance} |"
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
