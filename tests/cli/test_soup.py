import json

import pytest
import typer
from typer.testing import CliRunner

from palate.cli import app as program
from palate.cli import soup

app = typer.Typer()
app.add_typer(soup.app, name="soup")


def test_fitted_coefficients_answer_and_merge(tiny_soup_library, tmp_path, monkeypatch, capsys):
    feedback = tmp_path / "f.jsonl"
    row = {"prompt": "a b c", "first": "b a d", "second": "c c", "label": 1}
    feedback.write_text(json.dumps(row) + "\n")
    out = tmp_path / "me.json"
    words = ["soup", "fit", str(tiny_soup_library), "--feedback", str(feedback), "--out", str(out)]
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    assert set(found["coefficients"]) == {"kind", "short", "plain"}
    assert "predicted_gain_per_token" in found
    text = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    assert "confidence: 0.95" in text
    assert all(column in text for column in ("served", "believed", "low", "high"))

    def run(*options):
        monkeypatch.setattr("sys.argv", ["palate", *map(str, options)])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return ended.value.code, capsys.readouterr()

    for method in ("soup", "output-soup"):
        code, said = run(
            *("generate", tiny_soup_library, "--prompt", "a b c", "--method", method),
            *("--coefficients", f"@{out}", "--max-tokens", 3, "--json"),
        )
        assert code == 0
        served = {name: row["served"] for name, row in found["coefficients"].items()}
        assert json.loads(said.out)["coefficients"] == pytest.approx(served)
    whole = json.loads(out.read_text())
    out.write_text(json.dumps({**whole, "base": "another"}))
    code, said = run(*("generate", tiny_soup_library, "--prompt", "a", "--coefficients", f"@{out}"))
    assert code == 2
    assert "'another'" in said.err


def test_both_studies_refine_a_fit_and_an_address_of_nothing_is_refused(
    tiny_soup_library, tmp_path, monkeypatch, capsys
):
    feedback = tmp_path / "f.jsonl"
    texts = ("b a d", "c c", "a", "d d b", "b")
    rows = [{"prompt": "a b c", "first": "a b", "second": text, "label": 1} for text in texts]
    feedback.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def fit(refine):
        options = [
            str(tiny_soup_library),
            "--feedback",
            str(feedback),
            "--refine",
            refine,
            "--json",
        ]
        monkeypatch.setattr("sys.argv", ["palate", "soup", "fit", *options])
        with pytest.raises(SystemExit) as ended:
            program.main()
        return ended.value.code, capsys.readouterr()

    for name in ("normalised", "value_head"):
        code, said = fit(f"research.soup.stages:{name}")
        assert code == 0, said.err
        assert set(json.loads(said.out)["coefficients"]) == {"kind", "short", "plain"}
    code, said = fit("research.soup.stages:nothing")
    assert code == 2
    assert "'research.soup.stages:nothing' cannot be imported or called" in said.err
