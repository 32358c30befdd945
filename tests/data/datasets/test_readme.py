from pathlib import Path

from parking.data.checking.findings import KINDS

README = Path(__file__).resolve().parents[3] / "datasets" / "README.md"


def test_the_table_in_the_readme_is_that_of_the_code():
    rows = [f"| {k.title} | {k.severity} | {k.strict} | {k.repair} |" for k in KINDS.values()]
    lines = README.read_text(encoding="utf-8").splitlines()
    start = lines.index("| finding | severity | `strict` | `repair` |")
    assert lines[start + 2 : start + 2 + len(rows) + 1] == [*rows, ""]
