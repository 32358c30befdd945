"""What older versions wrote can be read, gives the results that it gave then, and can be trained on."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from parking.config import compat

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ROOT / "tests/data_of_versions"
# CPUs add in different orders. With the kernels of SSE4.1 and of AVX2 instead of AVX-512, the last written digit moves:
# 0.001 pixels and 1e-6 of scores. A model that decodes otherwise is off by far more.
BOX_TOLERANCE = 0.01
SCORE_TOLERANCE = 1e-4
# In percent: what one match more or less changes in a class of five boxes.
AP_TOLERANCE = 1.0
# After the six iterations that follow the checkpoint; between the same kernels, 1e-6 was seen.
WEIGHT_TOLERANCE = 1e-4

make = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("make", VERSIONS / "make.py"))
spec.loader.exec_module(make)


class Results:
    """What the present tools make of a version's files: the working folder, exit codes and logs by name."""

    def __init__(self, folder: Path, old: Path, codes: dict[str, int]):
        self.folder, self.old, self.codes = folder, old, codes
        self.expected = json.loads((old / "digests.json").read_text())
        #: Whether the last bits must be the same.
        self.same_machine = make.describe_machine() == self.expected["machine"]

    def log(self, name: str) -> str:
        return (self.folder / f"{name}-0.log").read_text()


@pytest.fixture(scope="module", params=["v1", pytest.param("v2", marks=pytest.mark.long)])
def results(request, tmp_path_factory):
    old = VERSIONS / request.param
    folder = tmp_path_factory.mktemp("version") / "work"
    shutil.copytree(old, folder)
    typed = json.loads((old / "typed.json").read_text())
    train = ["train_net.py", "--config-file", "recipe.yaml"]
    infer = ["infer.py", "--input", "data/test"]
    weights = [f"released/model_final.{ending}" for ending in ("pth", "safetensors")]
    commands = [
        ["infer_pth", *infer, "--weights", weights[0], "--output", "pth"],
        ["infer_safetensors", *infer, "--weights", weights[1], "--output", "safetensors"],
        ["infer_yaml", *infer, "--config-file", "recipe.yaml", "--weights", weights[0], "--output", "yaml", *typed],
        ["evaluate", *train, "--eval-only", *typed, "MODEL.WEIGHTS", weights[0], "OUTPUT_DIR", "scored"],
        ["resume", *train, "--resume", *typed],
        ["start_anew", *train, *typed, "MODEL.WEIGHTS", weights[0], "SOLVER.MAX_ITER", "2", "OUTPUT_DIR", "anew"],
    ]
    runs = [{"name": name, "size": 1, "tool": tool, "args": args} for name, tool, *args in commands]
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worlds.py")), "."],
        input=json.dumps(runs),
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        check=True,
        timeout=600,
    )
    return Results(folder, old, {run["name"]: int((folder / f"{run['name']}-0.code").read_text()) for run in runs})


def test_every_tool_takes_the_files(results):
    failed = [f"{name}: {results.log(name)[-2000:]}" for name, code in results.codes.items() if code]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("name", ["pth", "safetensors", "yaml"])
def test_inference_finds_what_it_found(results, name):
    old = json.loads((results.old / "found/predictions.json").read_text())
    new = json.loads((results.folder / name / "predictions.json").read_text())
    if results.same_machine:
        assert new == old
    assert_same_boxes(new, old)
    old_images, images = (
        json.loads((folder / "images.json").read_text()) for folder in (results.old / "found", results.folder / name)
    )
    # Keys may have been added.
    assert [{key: image[key] for key in old} for image, old in zip(images, old_images, strict=True)] == old_images


def test_the_submission_is_the_same(results):
    old, new = (
        json.loads((f / "submission.json").read_text()) for f in (results.old / "found", results.folder / "pth")
    )
    if results.same_machine:
        assert new == old
    assert_same_boxes(new, old)


def test_evaluation_scores_what_it_scored(results):
    old = (results.old / "found/scores.txt").read_text()
    new = results.log("evaluate")
    new = new[new.rindex("  AP    AP50") :]
    if results.same_machine:
        assert new == old
    old, new = ([float(word) for word in text.split() if word[:1].isdigit()] for text in (old, new))
    assert len(old) > 20
    assert new == pytest.approx(old, abs=AP_TOLERANCE)
    old = json.loads((results.old / "found/evaluated.json").read_text())
    new = json.loads(next((results.folder / "scored").rglob("coco_instances_results.json")).read_text())
    assert_same_boxes(new, old)


def test_a_resumed_training_uses_pictures_as_it_did_when_it_began(results):
    is_first = results.old.name == "v1"  # which had no such key
    told = "INPUT.EXIF_ORIENTATION is 'ignore', with which the training" in results.log("resume")
    saved = (results.folder / "training/config.yaml").read_text()
    assert told == is_first and "\nVERSION: 3\n" in saved
    assert ("EXIF_ORIENTATION: ignore" in saved) == is_first
    # A new training has today's default.
    assert "EXIF_ORIENTATION: auto" in (results.folder / "anew/config.yaml").read_text()


@pytest.mark.parametrize("name", ["model_best.pth", "model_final.pth"])
def test_a_resumed_training_ends_as_the_old_code_ended_it(results, name):
    released = results.old / "released/model_final.pth"
    assert make.digest(released) == results.expected["weights"][name]
    old, new = (torch.load(path, weights_only=True) for path in (released, results.folder / "training" / name))
    assert new["class_names"] == old["class_names"]
    assert new["category_ids"] == old["category_ids"]
    expected = compat.upgrade_tensor_names(old["model"], compat.read_version(old["config"], ""), "the released weights")
    assert new["model"].keys() == expected.keys()
    tolerance = {"rtol": 0, "atol": 0} if results.same_machine else {"rtol": 1e-3, "atol": WEIGHT_TOLERANCE}
    for key, tensor in new["model"].items():
        torch.testing.assert_close(tensor, expected[key], **tolerance, msg=key)


def assert_same_boxes(new, old):
    """Each box has a counterpart, unless its score is as near to the lowest as scores may differ."""
    for ones, others in ((new, old), (old, new)):
        lowest = min(box["score"] for box in old) + SCORE_TOLERANCE
        by_class = defaultdict(list)
        for box in others:
            by_class[box["image_id"], box["category_id"]].append(box)
        for box in ones:
            if box["score"] <= lowest:
                continue
            candidates = by_class[box["image_id"], box["category_id"]]
            found = [c for c in candidates if is_same(box, c)]
            assert found, f"{box} has no counterpart among {candidates}"
            candidates.remove(found[0])


def is_same(box, other):
    sides = zip(box["bbox"], other["bbox"], strict=True)
    return abs(box["score"] - other["score"]) <= SCORE_TOLERANCE and all(abs(a - b) <= BOX_TOLERANCE for a, b in sides)
