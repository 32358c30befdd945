"""docs/architecture.md says what happens: the functions that it lists are called, in the order of the list."""

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
MAX_STEPS = 15


def listed(title):
    """The functions of the numbered list below the heading ``title``."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    return re.findall(r"^\d+\. `([^`]+)`", section.partition("\n## ")[0], re.MULTILINE)


def load_tool(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_code(name, tool):
    """The code object of ``tools/x.py:function`` or of a dotted name."""
    if ":" in name:
        return getattr(tool, name.partition(":")[2]).__code__
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        module = ROOT.joinpath(*parts[:i]).with_suffix(".py")
        if module.exists():
            found = importlib.import_module(".".join(parts[:i]))
            for part in parts[i:]:
                found = getattr(found, part)
            return inspect.unwrap(found).__code__
    raise AssertionError(f"{name} is in no module of this package")


def trace(run, codes):
    """The names of ``codes`` (name: code object) in the order of their first calls during ``run()``."""
    names = {code: name for name, code in codes.items()}
    called = []

    def note(frame, event, argument):
        if event == "call" and (name := names.pop(frame.f_code, None)):
            called.append(name)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return called


def check_page(title, tool_path, arguments, monkeypatch):
    steps = listed(title)
    assert 5 < len(steps) <= MAX_STEPS
    tool = load_tool(ROOT / tool_path)
    codes = {name: find_code(name, tool) for name in steps}
    monkeypatch.setattr(sys, "argv", [tool_path, *map(str, arguments)])
    assert trace(tool.run, codes) == steps


@pytest.fixture
def scenes_opts(tiny_scenes):
    sizes = ["INPUT.SIZE_TRAIN", "[64, 96]", "INPUT.SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "4"]
    return ["DATASETS.ROOT", tiny_scenes, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", *sizes]


def test_one_training_iteration(tmp_path, scenes_opts, monkeypatch):
    opts = ["SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "1", "DATASETS.TEST", "()", "OUTPUT_DIR", tmp_path]
    arguments = ["--config-file", ROOT / "configs/quickstart.yaml", *scenes_opts, *opts]
    check_page("One training iteration", "tools/train_net.py", arguments, monkeypatch)


def test_one_image_through_inference(tmp_path, weights_file, monkeypatch):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.full((64, 96, 3), 90, np.uint8)).save(tmp_path / "photos/a.png")
    arguments = ["--input", tmp_path / "photos", "--weights", weights_file, "--output", tmp_path / "out"]
    opts = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
    check_page("One image through inference", "tools/infer.py", [*arguments, *opts], monkeypatch)
