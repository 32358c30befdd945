"""What an installation gets: the ranges of setup.py, the lock files, the Makefile; what ``import parking`` costs."""

import ast
import importlib.metadata
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
# What `pip install -e .` must leave to the environment it is run in.
LEFT_TO_THE_USER = {
    "torch",
    "torchvision",
    "detectron2",
    "sal-detectron2",
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
}

# Distributions of modules that have another name.
OTHER_NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "PyYAML"}
# ImageDetections.to_supervision says how to install it. setup.py does not name it, because it brings a second OpenCV.
LEFT_TO_THE_CALLER = {"detectron2", "supervision"}


@pytest.fixture(scope="module")
def metadata():
    """The keyword arguments with which setup.py calls setuptools."""
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr(setuptools, "setup", lambda **kwargs: calls.append(kwargs))
        runpy.run_path(str(ROOT / "setup.py"))
    (kwargs,) = calls
    return kwargs


@pytest.fixture(scope="module")
def lock():
    """The entries of requirements.lock: (requirement, number of hashes)."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = []
    for line in text.replace("\\\n", "").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=sha256:")
            assert all(re.fullmatch(r"[0-9a-f]{64}", digest.strip()) for digest in hashes), line
            entries.append((Requirement(requirement.strip()), len(hashes)))
    return entries


def _declared(metadata) -> list[Requirement]:
    lists = [metadata["install_requires"], *metadata["extras_require"].values()]
    return [Requirement(text) for texts in lists for text in texts]


def _name(requirement: Requirement) -> str:
    return canonicalize_name(requirement.name)


def _range(metadata, extra: str, name: str):
    (requirement,) = (r for r in map(Requirement, metadata["extras_require"][extra]) if r.name == name)
    return requirement.specifier


# ---- setup.py


def test_ranges_admit_the_promised_torch_versions(metadata):
    torch, torchvision = (_range(metadata, "torch", name) for name in ("torch", "torchvision"))
    # torchvision 0.(n + 15) belongs to torch 2.n.
    for minor in range(11, 16):
        assert torch.contains(f"2.{minor}.0") and torch.contains(f"2.{minor}.1")
        assert torchvision.contains(f"0.{minor + 15}.0")
    assert not torch.contains("2.10.0") and not torch.contains("2.16.0")
    assert not torchvision.contains("0.25.0") and not torchvision.contains("0.31.0")


def test_python_versions(metadata):
    admitted = Requirement(f"python{metadata['python_requires']}").specifier
    assert all(admitted.contains(f"{version}.0") for version in PYTHONS)
    assert not admitted.contains("3.9.18") and not admitted.contains("3.14.0")


def test_a_plain_install_replaces_neither_torch_nor_detectron2_nor_opencv(metadata):
    """Nor do the packages that it installs along, as far as these are installed here."""
    todo, closure = [canonicalize_name(Requirement(text).name) for text in metadata["install_requires"]], set()
    while todo:
        name = todo.pop()
        if name in closure:
            continue
        closure.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(_name(requirement))
    assert {"numpy", "omegaconf"} <= closure  # a direct and an indirect one
    assert not closure & LEFT_TO_THE_USER


def test_only_the_package_is_installed(metadata):
    folders = {path.parent for path in (ROOT / "parking").rglob("*.py")}
    assert set(metadata["packages"]) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_licence_and_version(metadata):
    assert metadata["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert re.fullmatch(r"\d+\.\d+\.\d+", metadata["version"])


def test_every_imported_distribution_is_declared(metadata):
    declared = {_name(requirement) for requirement in _declared(metadata)} | LEFT_TO_THE_CALLER
    for folder in ("parking", "tools", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            beside = {sibling.stem for sibling in path.parent.glob("*.py")}
            for module in _imported(path) - set(sys.stdlib_module_names) - {"parking"} - beside:
                name = canonicalize_name(OTHER_NAMES.get(module, module))
                assert name in declared, f"{path} imports {module}, but setup.py does not name {name}"


def _imported(path: Path) -> set[str]:
    """Top-level modules that a file imports absolutely."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            modules.add(node.module.split(".")[0])
    return modules


# ---- the lock files


def test_lock_pins_everything_with_hashes_and_names_no_host(lock):
    assert len(lock) > 50
    for requirement, num_hashes in lock:
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)) and requirement.url is None, requirement
        assert num_hashes > 0, requirement
    for name in ("requirements.lock", "requirements-detectron2.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"://|--(index|extra-index|find-links)", text)


@pytest.mark.parametrize("python", PYTHONS)
def test_lock_holds_one_admitted_version_of_every_requirement(metadata, lock, python):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
    }
    pinned = {}
    for requirement, _ in lock:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert _name(requirement) not in pinned, f"{requirement} is there twice for Python {python}"
            pinned[_name(requirement)] = str(requirement.specifier).removeprefix("==")
    for requirement in _declared(metadata):
        assert requirement.specifier.contains(pinned[_name(requirement)]), requirement
    assert (pinned["torch"], pinned["torchvision"]) == ("2.13.0", "0.28.0")
    assert not {"opencv-python", "opencv-contrib-python", "detectron2"} & pinned.keys()


def test_detectron2_is_the_one_that_was_compared_with_upstream():
    lines = (ROOT / "requirements-detectron2.lock").read_text(encoding="utf-8").splitlines()
    (pin,) = (line for line in lines if not line.startswith("#"))
    digest = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
    assert pin == f"sal-detectron2==0.7.2 --hash=sha256:{digest}"


# ---- import parking


def _run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "module, command",
    [
        ("detectron2", "make detectron2 PYTHON=python"),
        ("torch", "pip install -e '.[torch]'"),
        ("cv2", "pip install -e '.[opencv]'"),
    ],
)
def test_a_missing_requirement_is_one_sentence(module, command):
    result = _run_python(f"import sys; sys.modules[{module!r}] = None; import parking")  # None: "not to be found"
    assert result.returncode == 1
    last_line = result.stderr.strip().splitlines()[-1]
    assert last_line.startswith(f"ImportError: parking needs {module}, which is not installed: ")
    assert "make setup" in last_line and command in last_line and last_line.endswith(".")


def test_the_suggested_extras_exist(metadata):
    hints = re.findall(r"\.\[(\w+)\]", (ROOT / "parking/__init__.py").read_text(encoding="utf-8"))
    assert hints and set(hints) <= metadata["extras_require"].keys()


def test_import_parking_costs_nothing():
    heavy = "{'torch', 'torchvision', 'detectron2', 'cv2', 'numpy', 'matplotlib'}"
    result = _run_python(f"import sys, parking; print(sorted({heavy} & sys.modules.keys()))")
    assert (result.returncode, result.stdout.strip()) == (0, "[]"), result.stderr


# ---- Makefile and CI


@pytest.fixture
def make(tmp_path):
    """Run make in the repository with a .venv of its own that does not exist."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    # Without the settings of the make that runs these tests.
    own = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHON", "DETECTRON2")
    environment = {key: value for key, value in os.environ.items() if key not in own}

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = ["make", "-C", str(ROOT), f"VENV={tmp_path / 'venv'}", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    yield run
    assert not (tmp_path / "venv").exists()


def test_help_lists_the_targets(make):
    listed = re.findall(r"^make (\w+) ", make("help").stdout, re.M)
    assert {"setup", "demo", "test", "lint", "format", "lock", "clean"} <= set(listed)


def test_demo_calls_files_that_exist(make):
    result = make("--dry-run", "demo")
    assert result.returncode == 0, result.stderr
    files = set(re.findall(r"(?:tools|configs)/\S+", result.stdout))
    assert {"tools/make_synthetic.py", "tools/train_net.py", "tools/infer.py"} <= files
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []


def _fake_python(path: Path, lie: str) -> str:
    """An interpreter that first runs the Python statement ``lie`` and then what follows ``-c``."""
    code = f"import sys; {lie}; exec(sys.argv[1])"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$2"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    "lie, sentence",
    [
        ("sys.version_info = (3, 9, 18)", "is Python 3.9, but parking needs 3.10 to 3.13"),
        ("sys.version_info = (3, 14, 0)", "is Python 3.14, but parking needs 3.10 to 3.13"),
        ("sys.modules['ensurepip'] = None", "has no venv module with pip: install it"),
    ],
)
def test_an_unusable_python_is_one_sentence(make, tmp_path, lie, sentence):
    result = make("setup", f"PYTHON={_fake_python(tmp_path / 'python', lie)}")
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and sentence in said[0], result.stderr


def test_a_python_that_is_not_there_is_one_sentence(make):
    result = make("setup", "PYTHON=no-such-python")
    assert result.returncode != 0
    assert "There is no 'no-such-python' here: install Python 3.10 to 3.13" in result.stderr.splitlines()[0]


def test_detectron2_alone_needs_an_interpreter_named(make):
    result = make("detectron2")
    assert result.returncode != 0 and "make detectron2 PYTHON=python" in result.stderr


def test_ci_lints_and_tests():
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    commands = [line for line in script.read_text(encoding="utf-8").splitlines() if line.startswith("make")]
    assert commands == ["make lint", "make test", "make test-long"]


# ---- what is in the repository


def test_no_tracked_file_names_a_registry_or_a_place_on_this_machine():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    )
    registries = ["py" + "pi.org", "python" + "hosted.org", "registry.npm" + "js", "deb.deb" + "ian.org"]
    places = [f"{folder}/" for folder in (ROOT, Path.home()) if len(folder.parts) > 1]
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        found = [text for text in registries + places if text.encode() in content]
        assert not found, f"{name} names {found}"
