"""A simulated user of the small world, taught and served over HTTP, and what the gold rules say.

The user answers questions by their own gold reward, with noise; the answers that they get
afterwards are judged by the gold rules on held-out prompts, beside those of the best method with
the user's true preference, and of the base. The server may be killed (SIGKILL) on the way:
whatever was acknowledged must be there after the restart.
"""

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from jaxtyping import Float
from numpy import ndarray
from pydantic import Field
from rich.console import Console
from rich.table import Table
from scipy.special import expit

from palate.core.errors import CheckFailedError
from palate.core.files import dump_json
from palate.core.progress import progress_of
from palate.core.seeds import derive_seed, generator_for
from palate.core.settings import Settings
from palate.metrics.intervals import bootstrap_interval
from research.command_line import IsJson, Seed, run, whole_numbers
from research.serving.server_process import FREE, ServerProcess
from research.world.gold import gold_rewards
from research.world.objectives import OBJECTIVE_NAMES, USERS, User
from research.world.prompts import held_out_prompts, train_prompts

GAIN = 10.0  # odds of the user's verdicts: e to the gain times the difference of gold rewards
N_TOGETHER = 12
ANSWER_TOKENS = 96
METHODS: dict[str, dict[str, Any]] = {
    "auto": {"method": "auto"},
    "prompt": {"method": "prompt"},
    "soup, strength 1": {"method": "soup", "strength": 1.0},
    "soup, strength 2": {"method": "soup", "strength": 2.0},
    "soup, strength 3": {"method": "soup", "strength": 3.0},
    "prompted-soup": {"method": "prompted-soup"},
    "output-soup, strength 2": {"method": "output-soup", "strength": 2.0},
    "portfolio": {"method": "portfolio"},
    "mixture": {"method": "mixture"},
}


@dataclass(frozen=True)
class UserDrill:
    """One user's story.

    Attributes:
        user: Index in `research.world.objectives.USERS`.
        n_questions: That the user answers.
        n_prompts: Held-out prompts that are judged.
        seed: Of questions, verdicts and answers.
        with_methods: Also judge every method with the true preference.
    """

    user: int
    n_questions: int = 20
    n_prompts: int = 48
    seed: int = 0
    with_methods: bool = True


class DrillSettings(Settings):
    """Who teaches the server, and how it is tried.

    Attributes:
        users: Indices in `research.world.objectives.USERS`.
        n_questions: That each answers.
        n_prompts: Held-out prompts that are judged.
        n_kills: Times that the server is killed (SIGKILL) while each user teaches it.
        database: URL; a new SQLite file where absent.
        seed: Of questions, verdicts, answers.
    """

    users: tuple[Annotated[int, Field(ge=0, lt=len(USERS))], ...]
    n_questions: int = Field(default=20, ge=1)
    n_prompts: int = Field(default=48, ge=2, le=96)
    n_kills: int = Field(default=1, ge=0)
    database: str | None = None
    seed: int = 0


def drill_users(library: Path, settings: DrillSettings) -> dict[str, Any]:
    """Teach a server, killed on the way, one user after the other.

    Raises:
        CheckFailedError: acknowledged feedback was lost, or the server does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        server = ServerProcess(library, settings.database or f"{folder}/users.db", FREE)
        server.start()
        try:
            stories = [_drilled(server, user, settings) for user in settings.users]
        finally:
            server.kill()
    return {"settings": settings.model_dump(), "users": stories}


def _drilled(server: ServerProcess, user: int, settings: DrillSettings) -> dict[str, Any]:
    generator = generator_for(settings.seed, "kills", user)
    n_kills = min(settings.n_kills, settings.n_questions - 1)
    killed_before = {1 + int(k) for k in generator.permutation(settings.n_questions - 1)[:n_kills]}

    def disturb(number: int) -> None:
        if number in killed_before:
            server.kill()
            server.start()

    drill = UserDrill(
        user, settings.n_questions, settings.n_prompts, settings.seed, with_methods=True
    )
    with progress_of(f"teach {USERS[user].name}") as report:

        def before(number: int) -> None:
            disturb(number)
            report(number + 1, settings.n_questions)

        return {**run_user(server, drill, before_question=before), "n_kills": n_kills}


def run_user(
    server: ServerProcess,
    drill: UserDrill,
    *,
    before_question: Callable[[int], None] = lambda _number: None,
) -> dict[str, Any]:
    """Teach the server one user; what the answers are worth, as plain data.

    Args:
        server: Running.
        drill: Who, and how much.
        before_question: Called with each question's number; may kill and restart the server.

    Raises:
        CheckFailedError: feedback that was acknowledged is not there at the end.
    """
    user = USERS[drill.user]
    name = f"{user.name}-{drill.seed}"
    taste = np.array(user.preference.shares)
    shares = dict(zip(OBJECTIVE_NAMES, user.preference.shares, strict=True))
    judged = {"base": _judge(server, {"method": "base"}, taste, drill)}
    served = server.must("GET", "/v1/library")["methods"]
    for label, wanted in METHODS.items() if drill.with_methods else ():
        if wanted["method"] in served:
            judged[label] = _judge(server, {"preference": shares, **wanted}, taste, drill)
    generator = generator_for(drill.seed, "person drill", user.name)
    acknowledged: list[str] = []
    for number in range(drill.n_questions):
        before_question(number)
        acknowledged.append(_teach(server, name, taste, number, generator))
    export = server.must("GET", f"/v1/users/{name}/export")
    kept = {item["key"] for item in export["feedback"]}
    lost = [key for key in acknowledged if key not in kept]
    if lost:
        raise CheckFailedError(f"{len(lost)} acknowledged items of feedback were lost.")
    judged["learned"] = _judge(server, {"user": name}, taste, drill)
    return _story(user, judged, drill, n_kept=len(kept))


def _story(
    user: User,
    judged: dict[str, Float[ndarray, " prompts"]],
    drill: UserDrill,
    *,
    n_kept: int,
) -> dict[str, Any]:
    means = {method: float(values.mean()) for method, values in judged.items()}
    known = {method: value for method, value in means.items() if method not in ("learned", "base")}
    best = max(known, key=lambda method: known[method]) if known else "base"
    generator = generator_for(drill.seed, "person interval", user.name)
    ratio = means["learned"] / means[best]
    places = generator.integers(drill.n_prompts, size=(2000, drill.n_prompts))
    drawn = judged["learned"][places].mean(axis=1) / judged[best][places].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "user": user.name,
        "wants": user.label,
        "n_questions": drill.n_questions,
        "n_prompts": drill.n_prompts,
        "n_feedback_kept": n_kept,
        "gold": {
            method: {
                "mean": means[method],
                **_ends(values, generator_for(drill.seed, "gold interval", method)),
            }
            for method, values in judged.items()
        },
        "best_method": best,
        "learned_over_best": {"ratio": ratio, "low": float(low), "high": float(high)},
    }


def _ends(values: Float[ndarray, " prompts"], generator: np.random.Generator) -> dict[str, float]:
    found = bootstrap_interval(values, clusters=np.arange(len(values)), generator=generator)
    return {"low": found.low, "high": found.high}


def _teach(
    server: ServerProcess,
    name: str,
    taste: Float[ndarray, " objectives"],
    number: int,
    generator: np.random.Generator,
) -> str:
    """One question and its verdict; the key under which it was acknowledged."""
    prompts = train_prompts()
    prompt = prompts[int(generator.integers(len(prompts)))]
    asked = server.must(
        "POST",
        "/v1/questions",
        {
            "user": name,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": ANSWER_TOKENS,
            "seed": derive_seed(number, name) % 2**53,
        },
    )
    first, second = gold_rewards([answer["text"].strip() for answer in asked["answers"]]) @ taste
    is_first = bool(generator.random() < expit(GAIN * (first - second)))
    preferred = "tie" if first == second else int(not is_first)
    key = f"{name}/{number}"
    verdict = {"response": asked["response"], "kind": "comparison", "preferred": preferred}
    server.must("POST", "/v1/feedback", {**verdict, "key": key})
    return key


def _judge(
    server: ServerProcess,
    palate: dict[str, Any],
    taste: Float[ndarray, " objectives"],
    drill: UserDrill,
) -> Float[ndarray, " prompts"]:
    """Gold reward of one answer to each held-out prompt, the same seeds for every method."""

    def answer(numbered: tuple[int, str]) -> str:
        number, prompt = numbered
        found = server.must(
            "POST",
            "/v1/chat/completions",
            {
                "model": "palate",
                "messages": [{"role": "user", "content": prompt}],
                "max_tokens": ANSWER_TOKENS,
                "seed": derive_seed(drill.seed, "judged", number) % 2**53,
                "palate": palate,
            },
        )
        return str(found["choices"][0]["message"]["content"]).strip()

    prompts = held_out_prompts()[: drill.n_prompts]
    with ThreadPoolExecutor(N_TOGETHER) as pool:
        texts = list(pool.map(answer, enumerate(prompts)))
    return gold_rewards(texts) @ taste


def main(  # noqa: PLR0913  a command's options are its parameters
    library: Annotated[Path, typer.Argument(help="Folder of the small world's library.")],
    *,
    users: Annotated[str, typer.Option(help="Who, 0 to 7.")] = "0,3,5,6",
    questions: Annotated[int, typer.Option(min=1, help="That each answers.")] = 20,
    prompts: Annotated[int, typer.Option(min=2, max=96, help="Held-out, judged.")] = 48,
    kills: Annotated[int, typer.Option(min=0, help="Times the server is killed for each.")] = 1,
    database: Annotated[
        str | None, typer.Option("--database", help="URL; a new SQLite file where absent.")
    ] = None,
    seed: Seed = 0,
    is_json: IsJson = False,
) -> None:
    """Simulated users who teach a server over HTTP, killed on the way; gold rules judge."""
    settings = DrillSettings(
        users=whole_numbers(users, what="users"),
        n_questions=questions,
        n_prompts=prompts,
        n_kills=kills,
        database=database,
        seed=seed,
    )
    found = drill_users(library, settings)
    if is_json:
        typer.echo(dump_json(found))
        return
    table = Table("user", "wants", "base", "learned", "best way", "learned / best")
    for row in found["users"]:
        ratio, gold = row["learned_over_best"], row["gold"]
        table.add_row(
            row["user"],
            row["wants"],
            f"{gold['base']['mean']:.3f}",
            f"{gold['learned']['mean']:.3f}",
            f"{row['best_method']} {gold[row['best_method']]['mean']:.3f}",
            f"{ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]",
        )
    Console().print(table)


if __name__ == "__main__":
    run(main)
