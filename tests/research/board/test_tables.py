"""Utilities and comparisons, by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from board_rows import USERS, row
from palate.core.errors import FormatError, InvalidInputError
from research.board import findings, learning
from research.board.rows import Fact, Row, append, load
from research.board.tables import alone, tables_of

ONE, TWO = "one", "three"  # want `short`, and `plain`


def _base() -> list[Row]:
    """The base's numbers for `short` are 0 and 2: mean 1, deviation 1."""
    return [row("base", ONE, 0.0), row("base", ONE, 2.0, prompt="file:q")]


def test_utility_is_in_deviations_of_the_bases_answers() -> None:
    tables = tables_of([*_base(), row("soup", ONE, 4.0)], USERS)
    assert dict(tables.cells["base"]) == {
        (ONE, "file:p", 0, 0, 0): -1.0,
        (ONE, "file:q", 0, 0, 0): 1.0,
    }
    assert list(tables.cells["soup"].values()) == [3.0]


def test_two_judges_of_an_objective_count_their_mean_and_a_signed_truth_subtracts() -> None:
    rows = [
        row("base", "two", 0.0, meaning={"kind": k, "plain": 3.0 * k}, form={"kind": k}, prompt=p)
        for k, p in ((0.0, "file:p"), (2.0, "file:q"))
    ]
    rows.append(row("soup", "two", 0.0, meaning={"kind": 3.0, "plain": 9.0}, form={"kind": 1.0}))
    tables = tables_of(rows, USERS)
    (value,) = tables.cells["soup"].values()
    assert value == pytest.approx(0.7 * (2.0 + 0.0) / 2 - 0.3 * 2.0)


def test_a_judge_that_the_base_hardly_moves_does_not_outweigh_the_others() -> None:
    rows = [row("base", ONE, 0.0), row("base", ONE, 0.02, prompt="file:q")]
    tables = tables_of([*rows, row("soup", ONE, 0.51)], USERS)
    (value,) = tables.cells["soup"].values()
    assert value == pytest.approx(5.0)  # a half in tenths, not in deviations of 0.01


def test_conversations_do_not_move_the_scale() -> None:
    rows = [*_base(), row("base", ONE, 50.0, turns=4)]
    tables = tables_of(rows, USERS)
    assert tables.cells["base"][ONE, "file:p", 4, 0, 0] == 49.0


def test_what_needs_no_training_stands_for_every_library() -> None:
    rows = [*_base(), row("soup", ONE, 3.0), row("soup", ONE, 5.0, library=1)]
    tables = tables_of(rows, USERS)
    mine, theirs, cells = tables.pairs("soup", "base", alone)
    assert [cell[4] for cell in cells] == [0, 1]
    assert (mine - theirs).tolist() == [3.0, 5.0]


def _clear(n_prompts: int = 8) -> list[Row]:
    """The soup is a deviation ahead of the prompt, and that is as good as the base."""
    rows: list[Row] = []
    for user in (ONE, TWO):
        for k in range(n_prompts):
            for method, ahead in (("base", 0.0), ("prompt", 0.1 * (-1) ** k), ("soup", 2.0)):
                rows.append(
                    row(
                        method,
                        user,
                        0.0,
                        prompt=f"file:{k}",
                        text=f"{method} answers {user} {k}",
                        meaning=dict.fromkeys(("kind", "short", "plain"), k % 3 + ahead + 0.01 * k),
                        shape="sparse" if user == ONE else "uneven",
                    )
                )
    return rows


def test_the_frontier_and_the_winners_name_what_is_ahead() -> None:
    tables = tables_of(_clear(), USERS)
    by_knowledge = {one["knows"]: one for one in findings.frontier(tables)}
    assert by_knowledge["sliders"]["method"] == "soup"
    assert by_knowledge["sliders"]["not_significantly_different"] == []
    assert by_knowledge["words"]["method"] == "base"
    (everywhere, *others) = findings.winners(tables)
    assert everywhere["sliders"]["is_ours"]
    assert [one["where"] for one in others] == ["sparse preferences", "uneven preferences"]


def test_small_steps_of_passes_do_not_add_up_to_one_cost() -> None:
    costs = (("base", 1.0), ("mod", 1.04), ("rewarded-soup", 1.08), ("soup", 1.12))
    rows = [
        replace(one, method=name, n_passes=n_passes)
        for one in _clear()
        for name, n_passes in costs
        if one.method == ("soup" if name == "soup" else "base")
    ]
    cheap, *_ = (
        one for one in findings.frontier(tables_of(rows, USERS)) if one["knows"] == "sliders"
    )
    assert (cheap["method"], cheap["passes"]) == ("base", 1.0)  # the soup costs more


def test_methods_of_fewer_users_are_compared_on_those() -> None:
    """The soup gains 2 with one user and 0 with the other; an adapter of the first gains 1."""
    rows = [
        row(method, user, 0.0, prompt=f"file:{k}", meaning=_all(k % 3 + gain))
        for k in range(4)
        for method, gains in (("base", (0, 0)), ("soup@10", (2, 0)), ("lora@10", (1.5, None)))
        for user, gain in zip((ONE, TWO), gains, strict=True)
        if gain is not None
    ]
    best = findings.best_of(tables_of(rows, USERS), ["base", "lora@10", "soup@10"], alone)
    assert best is not None
    assert best["method"] == "soup@10"  # of means over their own users the adapter's is larger
    assert best["n_users"] == 2


def _all(value: float) -> dict[str, float]:
    return dict.fromkeys(("kind", "short", "plain"), value)


def test_what_is_chosen_on_half_of_the_prompts_is_measured_on_the_others() -> None:
    gains = {
        "soup": {(ONE, prompt, 0, 0, 0): gain for prompt, gain in (("a", 3.0), ("b", 0.0))},
        "mod": {(ONE, prompt, 0, 0, 0): gain for prompt, gain in (("a", 1.0), ("b", 1.5))},
    }
    assert findings.ahead(gains) == "soup"  # 1.5 on average
    # the soup, chosen on a, gains 0 on b; mod, chosen on b, gains 1 on a
    assert findings.gain_on_other_prompts(gains) == 0.5
    only = {name: {cell: own[cell] for cell in list(own)[:1]} for name, own in gains.items()}
    assert findings.gain_on_other_prompts(only) is None


def test_questions_are_answered_by_form_alone_too() -> None:
    rows = [
        Row(**{**vars(one), "form": {name: -value for name, value in one.meaning.items()}})
        for one in _clear()
    ]
    rows += [Row(**{**vars(one), "method": "auto"}) for one in rows if one.method == "soup"]
    both, form = tables_of(rows, USERS), tables_of(rows, USERS, judges=("form",))
    (everywhere, *_) = (
        one for one in findings.questions(both, form) if one["where"] == "all single prompts"
    )
    assert everywhere["estimate"] == pytest.approx(0.0)  # half meaning, half its opposite
    assert (everywhere["by_form"]["verdict"], everywhere["verdict"]) == (
        "worse",
        "not significantly different",
    )
    assert findings.questions(both)[0]["by_form"] is None


def test_a_star_needs_the_adjusted_test_and_the_interval() -> None:
    rows = findings.method_rows(tables_of(_clear(), USERS), [])
    by_name = {one["name"]: one for one in rows}
    assert by_name["soup"]["gain"]["verdict"] == "better"
    assert by_name["prompt"]["gain"]["verdict"] == "not significantly different"
    assert by_name["soup"]["wins"]["ties_half"]["estimate"] == 1.0
    assert by_name["base"]["gain"] is None


def test_losses_say_what_auto_took() -> None:
    rows = [*_clear()]
    rows += [
        Row(**{**vars(one), "method": "auto", "taken": "prompt"})
        for one in rows
        if one.method == "prompt"
    ]
    better = [Row(**{**vars(one), "method": "mod"}) for one in rows if one.method == "soup"]
    rows += [Row(**{**vars(one), "method": "lora@10"}) for one in better]  # knows something else
    (lost, *_) = findings.losses(tables_of([*rows, *better], USERS))
    assert (lost["method"], lost["rival"], lost["verdict"]) == ("auto", "mod", "worse")
    assert lost["taken"] == {"prompt": 1.0}


def test_a_learned_user_is_compared_with_rivals_of_no_more_comparisons() -> None:
    rows = _clear()
    for method, like in (("soup@10", "base"), ("lora@10", "prompt"), ("lora@100", "soup")):
        rows += [Row(**{**vars(one), "method": method}) for one in rows if one.method == like]
    lost = findings.losses(tables_of(rows, USERS))
    assert {one["rival"] for one in lost if one["method"] == "soup@10"} <= {"lora@10"}


def test_the_crossing_is_the_first_number_of_comparisons_ahead_of_the_prompt() -> None:
    rows = [one for one in _clear() if one.method != "soup"]
    rows += [
        Row(**{**vars(one), "method": "prompt:vague"}) for one in rows if one.method == "prompt"
    ]
    for n, ahead in ((3, -1.0), (10, 1.0)):
        rows += [
            Row(
                **{
                    **vars(one),
                    "method": f"soup@{n}",
                    "meaning": {name: value + ahead for name, value in one.meaning.items()},
                }
            )
            for one in rows
            if one.method == "prompt:vague"
        ]
    (crossing,) = learning.crossings(tables_of(rows, USERS))
    assert (crossing["ahead_from"], crossing["significantly_from"]) == (10, 10)
    curves = learning.curves(tables_of(rows, USERS))
    assert [point["x"] for point in curves["comparisons"]["soup"]] == [3, 10]


def test_a_lead_that_more_comparisons_lose_again_is_no_crossing() -> None:
    rows = [one for one in _clear() if one.method != "soup"]
    vague = [Row(**{**vars(one), "method": "prompt:vague"}) for one in rows if one.method == "base"]
    rows += vague
    for n, ahead in ((0, 1.0), (3, -1.0), (10, 1.0), (30, 1.0)):
        rows += [
            Row(
                **{
                    **vars(one),
                    "method": f"soup@{n}",
                    "meaning": {name: value + ahead for name, value in one.meaning.items()},
                }
            )
            for one in vague
        ]
    (crossing,) = learning.crossings(tables_of(rows, USERS))
    assert (crossing["ahead_from"], crossing["significantly_from"]) == (10, 10)
    lost = [one for one in rows if one.method not in ("soup@10", "soup@30")]
    (crossing,) = learning.crossings(tables_of(lost, USERS))
    assert (crossing["ahead_from"], crossing["significantly_from"]) == (None, None)


def test_crossings_of_all_wordings_are_adjusted_together() -> None:
    rows = [
        Row(
            **{
                **vars(one),
                "method": name,
                "meaning": {k: v + ahead for k, v in one.meaning.items()},
            }
        )
        for one in _clear()
        if one.method == "prompt"
        for name, ahead in (("prompt:vague", 0.0), ("prompt:profile", 0.0), ("soup@3", 0.04))
    ]
    rows += [one for one in _clear() if one.method == "base"]
    noisy = [
        replace(one, meaning={k: v + 0.1 * (n % 5) for k, v in one.meaning.items()})
        if one.method == "soup@3"
        else one
        for n, one in enumerate(rows)
    ]
    crossings = learning.crossings(tables_of(noisy, USERS))
    (first,), (second,) = (one["points"] for one in crossings)
    assert first["p_value"] == second["p_value"] > 0
    assert first["p_adjusted"] == pytest.approx(min(1.0, 2 * first["p_value"]))


def test_words_and_comparisons_stand_beside_either_alone() -> None:
    rows = [one for one in _clear() if one.method != "prompt"]
    assert learning.words_and_comparisons(tables_of(rows, USERS)) == []
    soup = [one for one in rows if one.method == "soup"]
    rows += [Row(**{**vars(one), "method": "auto:instruction@10"}) for one in soup]
    rows += [
        Row(**{**vars(one), "method": name})
        for name in ("auto:instruction", "mod")
        for one in rows
        if one.method == "base"
    ]
    tables = tables_of(rows, USERS)
    words, both = learning.words_and_comparisons(tables)
    assert (words["method"], both["method"]) == ("auto:instruction", "auto:instruction@10")
    assert words["over"] == {"prompt:instruction": None, "auto:instruction": None, "auto@10": None}
    assert both["over"]["auto:instruction"]["verdict"] == "better"
    assert both["gain"]["estimate"] == both["over"]["auto:instruction"]["estimate"]
    by_knowledge = {one["knows"]: one["method"] for one in findings.frontier(tables)}
    assert by_knowledge["words and comparisons"] == "auto:instruction@10"
    assert by_knowledge["words"] != "auto:instruction@10"


def test_seeds_of_one_prompt_are_no_further_prompts_of_the_diversity() -> None:
    rows = [
        Row(**{**vars(one), "seed": seed, "text": f"{one.text} {seed}"})
        for one in _clear(n_prompts=1)
        for seed in (0, 1)
    ]
    by_name = {one["method"]: one for one in findings.diversity(tables_of(rows, USERS))}
    assert by_name["soup"]["n_prompts"] == 1
    assert by_name["soup"]["verdict"] == ""  # one prompt says nothing of others


def test_the_share_of_the_adapters_gain_is_a_ratio_of_sums() -> None:
    rows = [one for one in _clear() if one.method != "prompt"]
    adapters = [Row(**{**vars(one), "method": "lora@10"}) for one in rows if one.method == "soup"]
    learned = [
        Row(
            **{
                **vars(one),
                "method": "soup@10",
                "meaning": {name: value - 1.5 for name, value in one.meaning.items()},
            }
        )
        for one in adapters
    ]
    (share,) = learning.shares_of_adapters(tables_of([*rows, *adapters, *learned], USERS))
    assert share["share"]["estimate"] == pytest.approx(0.25)  # 0.5 of 2
    idle = [Row(**{**vars(one), "method": "lora@10"}) for one in rows if one.method == "base"]
    (share,) = learning.shares_of_adapters(tables_of([*rows, *idle, *learned], USERS))
    assert share["share"] is None


def test_equal_answers_to_different_users_are_less_diverse_than_the_bases_draws() -> None:
    rows = [
        Row(**{**vars(one), "text": "the same few words"}) if one.method == "soup" else one
        for one in _clear()
    ]
    by_name = {one["method"]: one for one in findings.diversity(tables_of(rows, USERS))}
    assert by_name["soup"]["self_bleu"] == 1.0
    assert by_name["soup"]["verdict"] == "less diverse"
    assert by_name["base"]["verdict"] == ""


def test_rows_without_the_base_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="The base has no answers to single prompts"):
        tables_of([row("soup", ONE, 1.0)], USERS)


def test_rows_are_read_as_written_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, _base())
    with path.open("a") as file:
        file.write('{"version": 1, "met')
    assert load(path, Row) == _base()
    append(path, [row("soup", ONE, 1.0)])
    assert len(load(path, Row)) == 3


def test_rows_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    append(path, [Fact("passes", "soup", 0, "", 1.0)])
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(FormatError, match="of version 9, but rows of version 1"):
        load(path, Fact)
    path.write_text('{"version": 1, "name": "x"}\n')
    with pytest.raises(FormatError, match="has other fields than a row"):
        load(path, Fact)
