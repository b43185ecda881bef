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
