"""The test of one representation on a tiny library, and its states against the engine."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from palate.core.errors import InvalidInputError
from palate.core.plan import Plan, Pool, Row, one_hot
from palate.engine.logprobs import row_distributions
from palate.library.features import scored_text
from palate.library.library import Library
from palate.models.adapter import Factor, save_adapter
from research.command_line import program
from research.soup import representation, representation_states
from research.soup.representation_report import as_markdown
from tiny import ANSWERS, PROMPTS


@pytest.fixture
def items(tiny_soup_library):
    base = Library.load(tiny_soup_library).base
    return [
        scored_text(base, prompt, answer)
        for prompt, answer in zip(PROMPTS, ANSWERS[:3], strict=True)
    ]


def _engine(library, item, states, rows, *, step=1.0):
    """A second way: the engine's own next-token distributions, centred under the base's shares."""
    n = library.bank.n_experts
    experts = [
        Row(tuple(step * value for value in one_hot(index=k, n_experts=n))) for k in range(n)
    ]
    pool = Pool("linear", (1.0 / (n + 1),) * (n + 1))
    plan = Plan((Row((0.0,) * n), *experts), pool)
    table = row_distributions(library.base, library.bank, plan=plan, item=item).double()
    raw = (table[1:] - table[0]).numpy(force=True) / step  # [experts, tokens, vocab]
    tokens = states.tokens[rows]
    picked = np.stack([np.take_along_axis(one, tokens, axis=1) for one in raw], axis=-1)
    mean = np.einsum("sl,sle->se", states.shares[rows], picked[:, :-1])
    return picked - mean[:, None]


def test_tilts_of_experts_in_hidden_layers_are_the_engines(tiny_soup_library, items):
    library = Library.load(tiny_soup_library)
    assert library.bank.before_head((1.0, 1.0, 1.0))
    states, tangent = representation_states.states_of(library, items, seed=0, has_tangent=True)
    for place, item in enumerate(items):
        rows = states.prompts == place
        assert states.tilts[rows] == pytest.approx(_engine(library, item, states, rows), abs=1e-4)
    assert states.shares.sum(axis=1) == pytest.approx(np.ones(len(states.shares)))
    assert tangent is not None
    for place, item in enumerate(items):
        rows, step = states.prompts == place, representation_states.STEP
        wanted = _engine(library, item, states, rows, step=step)
        assert tangent[rows] == pytest.approx(wanted, abs=1e-3)


def test_tilts_of_experts_of_the_unembedding_are_the_engines(
    tiny_soup_library, items, tmp_path, monkeypatch
):
    library = Library.load(tiny_soup_library)
    head = library.base.model.get_output_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    folders = {}
    for name in library.manifest.expert_names:
        down = torch.randn(2, head.shape[1], generator=generator)
        up = 0.1 * torch.randn(head.shape[0], 2, generator=generator)
        save_adapter({"lm_head": Factor(down, up, 0.5)}, tmp_path / name, base_path="tiny")
        folders[name] = tmp_path / name
    library.bank = type(library.bank).load(library.base, folders)
    monkeypatch.setattr(type(library.files), "expert_folders", lambda _: folders)
    states, tangent = representation_states.states_of(library, items, seed=0, has_tangent=True)
    assert tangent is None  # they are linear already
    assert representation.head_only(library) == list(library.manifest.expert_names)
    for place, item in enumerate(items):
        rows = states.prompts == place
        assert states.tilts[rows] == pytest.approx(_engine(library, item, states, rows), abs=1e-4)


def test_the_command_writes_shares_ranks_and_a_report(tiny_soup_library, tmp_path, monkeypatch):
    monkeypatch.setattr(representation_states, "N_LIKELY", 8)
    prompts = tmp_path / "held-out.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    app, out = program(representation.main), tmp_path / "report"
    options = ["--n-prompts", "3", "--prompts", str(prompts), "--out", str(out), "--json"]
    done = CliRunner().invoke(app, [str(tiny_soup_library), *options])
    assert done.exit_code == 0, done.output
    facts = json.loads(out.with_suffix(".json").read_text())
    assert facts["n"]["fit"][0] == 3
    assert facts["n"]["held out"][0] == 2
    assert facts["head_only"] == []
    assert {"psi", "tangent", "basis of others, rank 2"} <= set(facts["shares"]["answers"])
    assert facts["energy_by_rank"][-1] == pytest.approx(1.0)
    assert out.with_suffix(".md").read_text() == as_markdown(facts)
    assert "exactly by construction" not in as_markdown(facts)
    first, *others = facts["experts"]
    mixed = as_markdown({**facts, "head_only": [first], "prompts": "held-out rollouts"})
    assert f"unembedding alone: {first}. Psi" in mixed
    assert f"below the unembedding: {', '.join(others)}. Nothing" in mixed
    psi = facts["shares"]["tokens"]["psi"]
    assert f"changes of the unembedding psi explains {psi[0]['estimate']:.0%} of" in mixed


def test_too_few_prompts_are_refused(tiny_soup_library, tmp_path):
    library = Library.load(tiny_soup_library)
    with pytest.raises(InvalidInputError, match="1000 are wanted; lower --n-prompts"):
        representation_states.items_of(library, None, sizes=(999, 1), seed=0)
    prompts = tmp_path / "few.jsonl"
    prompts.write_text(json.dumps({"prompt": "one"}) + "\n")
    with pytest.raises(InvalidInputError, match="has 1 prompts of at most 400 characters, but 2"):
        representation_states.items_of(library, prompts, sizes=(1, 2), seed=0)


def test_one_expert_alone_is_refused(tiny_soup_library, monkeypatch):
    one = Library.load(tiny_soup_library)
    one.bank = type(one.bank)(one.base, {})
    monkeypatch.setattr(representation.Library, "load", lambda _: one)
    with pytest.raises(InvalidInputError, match="give a library of at least two"):
        representation.main()
