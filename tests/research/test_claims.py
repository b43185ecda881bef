"""The table of the papers' claims: each row has a verdict, and what it names exists."""

import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from palate.core.errors import FormatError
from research.claims import CLAIMS, PAGE, VERDICTS, as_table, main, page_with, pages, read_claims

REAL = {"paper": "PALM", "claim": "c", "test": "t", "verdict": "reproduced"}


def test_every_claim_has_a_verdict_and_a_figure_that_its_source_holds():
    claims = read_claims()  # refuses a number that the source lacks
    counts = Counter(claim.paper for claim in claims)
    assert len(claims) >= 30
    assert min(counts.values()) >= 10
    assert {claim.verdict for claim in claims} == set(VERDICTS)
    assert len({(claim.paper, claim.claim) for claim in claims}) == len(claims)


def test_every_command_names_what_exists(project_root: Path):
    for claim in read_claims():
        words = claim.command.split()
        if not words:
            continue
        if words[:2] == ["python", "-m"]:
            assert find_spec(words[2]) is not None, claim.command
        elif words[0] == "make":
            makefile = (project_root / "Makefile").read_text()
            assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), claim.command
        else:
            assert words[0] in ("python", "pytest")
            path = words[-1] if words[0] == "pytest" else words[1]
            assert (project_root / path).exists(), claim.command


def test_the_pages_have_the_present_tables(project_root: Path):
    for path, wanted in pages().items():
        assert (project_root / path).read_text() == wanted, "run python -m research.claims"
    main(is_check=True)


def _folder(tmp_path: Path, **row: str) -> Path:
    (tmp_path / CLAIMS).parent.mkdir(parents=True)
    (tmp_path / CLAIMS).write_text(f"- { ({**REAL, **row}) }\n")
    (tmp_path / "report.md").write_text("It was 0.25 [0.20, 0.30] of 1,200.\n")
    return tmp_path


GOOD = {"figure": "0.25 of 1,200", "source": "report.md", "command": "make report"}


def test_a_good_claim_is_a_row(tmp_path: Path):
    (claim,) = read_claims(_folder(tmp_path, **GOOD))
    assert "| 0.25 of 1,200 | **reproduced** | `make report` |" in as_table([claim])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**GOOD, "figure": "0.26"}, "has the number 0.26, which 'report.md' lacks"),
        ({**GOOD, "source": "none.md"}, "which does not exist"),
        ({**GOOD, "verdict": "good"}, "has the verdict 'good'; use reproduced"),
        ({**GOOD, "paper": "DPO"}, "is of the paper 'DPO'"),
        ({**GOOD, "command": ""}, "needs figure, source and command"),
        ({**GOOD, "verdict": "not tested"}, "needs figure, source and command"),
        ({**GOOD, "verdict": "not comparable"}, "without a reason; say why"),
        ({**GOOD, "colour": "red"}, "is no claim"),
    ],
)
def test_a_claim_with_a_fault_is_refused(tmp_path: Path, row: dict[str, str], words: str):
    with pytest.raises(FormatError, match=re.escape(words)):
        read_claims(_folder(tmp_path, **row))


def test_a_page_without_marks_is_refused():
    with pytest.raises(FormatError, match="lacks the marks"):
        page_with("table", "a page", path=PAGE)
