"""Who may import whom inside the package."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "parking"

_ALLOWED = {
    "utils": "",
    "config": "utils",
    "layers": "utils",
    "checkpoint": "config.compat modeling.dense_heads.anchor.published_names "
    "modeling.dense_heads.distribution.published_names modeling.dense_heads.yolox.published_names utils",
    "solver": "utils",
    "modeling": "layers utils",
    "data": "utils",
    "challenge": "data evaluation structures utils visualization",
    "structures": "utils",
    "synthetic": "challenge.classes utils",
    "visualization": "challenge.classes data.datasets utils",
    "evaluation": "data structures visualization utils",
    "inference": "challenge checkpoint config data evaluation layers modeling structures utils visualization",
    "export": "inference modeling utils",
    "benchmark": "challenge checkpoint config data engine evaluation inference modeling solver structures synthetic "
    "utils",
    "engine": "challenge checkpoint config data evaluation inference layers solver utils visualization",
}
ALLOWED = {room: set(others.split()) for room, others in _ALLOWED.items()}


def imported_modules(path: Path) -> set[str]:
    """Dotted modules of this package that the file imports, without the leading ``parking.``."""
    here = path.relative_to(ROOT).with_suffix("").parts
    if here[-1] == "__init__":
        here = here[:-1]
        package = here
    else:
        package = here[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            names = [module] + [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        found.update(name.removeprefix("parking.") for name in names if name.startswith("parking."))
    return found


def is_allowed(module: str, allowed: set[str]) -> bool:
    # `from parking.data import x` lists parking.data as well; what counts is whether a deeper name is allowed.
    return any(module == a or module.startswith(f"{a}.") or a.startswith(f"{module}.") for a in allowed)


@pytest.mark.parametrize("part", sorted(p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"))
def test_arrows_go_one_way(part):
    assert part in ALLOWED, f"say in this test what parking/{part} may import"
    wrong = []
    for path in sorted((PACKAGE / part).rglob("*.py")):
        for module in imported_modules(path):
            if module.split(".")[0] != part and not is_allowed(module, ALLOWED[part]):
                wrong.append(f"{path.relative_to(ROOT)} imports parking.{module}")
    assert not wrong, "\n".join(wrong)


def test_no_two_rooms_import_each_other():
    # All rooms may import the plain names of classes.
    arrows = {(part, other) for part in ALLOWED for other in ALLOWED[part] if other != "challenge.classes"}
    rooms = {(part, other.split(".")[0]) for part, other in arrows}
    assert not [arrow for arrow in rooms if arrow[::-1] in rooms]


def test_the_walk_sees_imports_of_all_kinds(tmp_path):
    # The check above is only as good as its reading of imports.
    modules = imported_modules(PACKAGE / "engine" / "trainer.py")
    assert "checkpoint" in modules
    assert "engine.hooks.evaluation" in modules  # relative


def test_no_room_is_crowded():
    for folder in [path for path in (PACKAGE, *PACKAGE.rglob("*")) if path.is_dir()]:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 12, f"{folder.relative_to(ROOT)} has {len(modules)} modules; give some a room"


def test_tests_find_the_repository():
    # A test that is moved and looks for ../shared in the wrong place would be skipped, not fail.
    for path in (ROOT / "tests").rglob("*.py"):
        for found in re.findall(r"__file__\)\.resolve\(\)\.parents\[(\d+)\]", path.read_text(encoding="utf-8")):
            assert path.parents[int(found)] == ROOT, path


def test_nothing_in_the_package_prints():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"), path


def test_what_tools_print_goes_through_the_doors_that_escape():
    # `say`, `complain` and the parser of parking.utils.cli.
    for path in (ROOT / "tools").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"), path
        assert not any(word in text for word in ("sys.stdout", "sys.stderr", "argparse.ArgumentParser(")), path
