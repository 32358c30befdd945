"""Everything that infer.py does with images, in this process."""

import dataclasses
import json
import logging
import os
import shutil
import time

import cv2
import numpy as np
import pytest
import torch

from parking.challenge.submission.selection import SubmissionOptions
from parking.config import get_cfg
from parking.data.datasets.images import list_images
from parking.inference import digests as recipes
from parking.inference import image_pipeline as inference_run
from parking.inference.barrier import PatientBarrier
from parking.inference.budget import TimeBudget
from parking.inference.digests import digest_images
from parking.inference.image_pipeline import (
    choose_submission,
    kept_results,
    load_models,
    run_inference,
)
from parking.inference.sinks.result_ids import ResultIds, choose_result_ids
from parking.inference.sources.orientations import settle_orientations
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.marks import MARK_NAME

SIZES = [(60, 96), (48, 80), (96, 60), (50, 90), (64, 64)]
CPU = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "TEST.IMS_PER_BATCH", "2"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def run(mild_weights_file, folder, tmp_path):
    """``run(*opts)``: the report of an inference into ``out``."""

    def run(*opts, weights=(), output="out", **kwargs):
        files = [str(path) for path in weights or [mild_weights_file]]
        models = load_models(None, files, [*CPU, "TEST.DETECTIONS_PER_IMAGE", "9", *map(str, opts)], default_config="")
        output_dir = str(tmp_path / output)
        (tmp_path / output).mkdir(exist_ok=True)
        barrier = PatientBarrier()
        images = settle_orientations(list_images(str(folder)).images, models[0].cfg, {})
        image_ids, category_ids = [image["image_id"] for image in images], models[0].classes.values()
        own_ids = ResultIds(dict(zip(image_ids, image_ids, strict=True)), {i: i for i in category_ids}, {})
        with kept_results(output_dir, barrier) as journals:
            return run_inference(
                models,
                images,
                output_dir=output_dir,
                folder=journals,
                barrier=barrier,
                ids=own_ids,
                **kwargs,
            )

    return run


@pytest.fixture
def interrupted(run, monkeypatch):
    """``interrupted(n, *opts)``: a run whose n-th batch is interrupted, before its results are written down."""

    def interrupted(number, *opts, **kwargs):
        calls = iter(range(1, number + 1))
        original = inference_run.ResultsJournal.append

        def append(journal, results):
            if next(calls, None) == number:
                monkeypatch.setattr(inference_run.ResultsJournal, "append", original)
                raise KeyboardInterrupt
            original(journal, results)

        monkeypatch.setattr(inference_run.ResultsJournal, "append", append)
        with pytest.raises(KeyboardInterrupt):
            run(*opts, **kwargs)

    return interrupted


@pytest.fixture
def model(weights_file):
    (model,) = load_models(None, [str(weights_file)], CPU, default_config="")
    return model


def read(path):
    """The results; the mark beside them is tested for itself."""
    return {p.name: p.read_bytes() for p in path.iterdir() if p.name != MARK_NAME}


def load(path):
    return json.loads(path.read_text())


def test_files_of_a_run(run, folder, tmp_path):
    (folder / "2.png").write_bytes(b"no image")
    report = run()
    assert report.files == {name: str(tmp_path / "out" / f"{name}.json") for name in ("predictions", "images")}
    assert read(tmp_path / "out").keys() == {"predictions.json", "images.json"}, "the journal is gone"
    assert report.errors.keys() == {3} and "2.png" in report.errors[3]
    rows = load(tmp_path / "out" / "predictions.json")
    assert len(rows) == len(report.detections) == 4 * 9
    assert [row["image_id"] for row in rows] == sorted(row["image_id"] for row in rows)
    assert {row["image_id"] for row in rows} == {1, 2, 4, 5} and {row["category_id"] for row in rows} == {7, 3}
    for row in rows:
        (x, y, w, h), (height, width) = row["bbox"], SIZES[row["image_id"] - 1]
        assert 0 <= x <= x + w <= width + 0.001 and 0 <= y <= y + h <= height + 0.001


def test_all_processes_are_waited_for_before_results_are_used_or_thrown_away(run, tmp_path, monkeypatch):
    seen = []

    def note(barrier):
        seen.append(sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("[!.]*.json*")))

    monkeypatch.setattr(PatientBarrier, "wait", note)
    run()
    journal = [f".parking-journal/model-0/{name}" for name in ("recipe.json", "results-00000.jsonl")]
    results = ["images.json", "predictions.json"]
    assert seen == [journal, [*journal, *results], results], "and until the journal is gone on all machines"


def test_a_lock_of_a_killed_process_is_removed(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".parking-journal-00007.lock").touch()
    run()
    assert read(tmp_path / "out").keys() == {"predictions.json", "images.json"}


def test_out_of_memory_while_measuring_is_one_candidate_less(run, monkeypatch, caplog):
    def measure(cfg, *args):
        if cfg.TEST.AUG.ENABLED:
            raise UserError("Out of memory while predicting.")
        return 1e-6

    monkeypatch.setattr(inference_run, "measure_speed", measure)
    assert run("TEST.AUG.ENABLED", "True", budget=TimeBudget(1.0, time.monotonic())).detections
    assert "--max-hours: the config as it is: Out of memory while predicting." in caplog.text


def test_nothing_readable(run, folder, tmp_path):
    for path in folder.iterdir():
        path.write_bytes(b"")
    report = run(submission=SubmissionOptions(10**6))
    assert list(report.errors) == [1, 2, 3, 4, 5] and len(report.detections) == 0
    assert load(tmp_path / "out" / "predictions.json") == load(tmp_path / "out" / "submission.json") == []


@pytest.mark.parametrize("number", [1, 2, 3, 4])  # 0 and 1, 2, 3, 4 are the batches, for their padded shapes
def test_an_interrupted_run_goes_on(run, folder, tmp_path, interrupted, caplog, number):
    (folder / "4.png").write_bytes(b"no image")
    run(output="whole")
    interrupted(number)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".parking-journal"]
    with caplog.at_level(logging.INFO):
        report = run()
    num_done = [0, 2, 3, 4][number - 1]
    assert (f"{num_done} of 5 images were done before the interruption" in caplog.text) == (num_done > 0)
    assert len(report.errors) == 1
    assert read(tmp_path / "out") == read(tmp_path / "whole")


@pytest.mark.parametrize(
    ("opts", "sentence"),
    [
        (("TEST.IMS_PER_BATCH", "1"), "TEST.IMS_PER_BATCH changed from 2 to 1"),
        # These change nothing about what is found.
        (("DATALOADER.NUM_WORKERS", "1", "TEST.SUBMISSION_MB", "1", "TEST.FUSION.NAME", "wbf"), ""),
    ],
)
def test_a_changed_config_starts_over(run, tmp_path, interrupted, caplog, opts, sentence):
    run(*opts, output="whole")
    interrupted(3)
    run(*opts)
    assert (f"Starting over: {sentence} since the interrupted run" in caplog.text) == bool(sentence)
    assert read(tmp_path / "out") == read(tmp_path / "whole")


def test_weights_that_are_replaced_meanwhile_are_other_weights(tmp_path, mild_weights_file, make_weights):
    """As a training that goes on does with model_best.pth: what was loaded counts, not what lies there by now."""
    weights = shutil.copy(mild_weights_file, tmp_path / "w.pth")
    (model,) = load_models(None, [str(weights)], CPU, default_config="")
    before = model.describe("")
    make_weights(weights, seed=1, std=0.01)
    (replaced,) = load_models(None, [str(weights)], CPU, default_config="")
    assert model.describe("") == before and replaced.describe("")["weights"] != before["weights"]


def test_weights_that_have_a_class_name_twice_infer_as_with_two_names(run, mild_weights_file, tmp_path, caplog):
    checkpoint = torch.load(mild_weights_file, weights_only=True)
    checkpoint["class_names"] = ["cat"] * len(checkpoint["class_names"])
    torch.save(checkpoint, tmp_path / "twice.pth")
    (model,) = load_models(None, [str(tmp_path / "twice.pth")], CPU, default_config="")
    assert list(model.classes)[:2] == ["cat", "cat (2)"]
    assert "twice.pth have a class name several times" in caplog.text
    twice, once = run(weights=[tmp_path / "twice.pth"], output="twice"), run(output="once")
    assert len(once.detections) and twice.detections.boxes.tolist() == once.detections.boxes.tolist()
    assert twice.detections.category_ids.tolist() == once.detections.category_ids.tolist()


def test_a_recipe_tells_all_that_matters(model, folder):
    digest = digest_images(list_images(str(folder)).images)
    known = model.describe(digest)

    def describe_with(*opts):
        cfg = model.cfg.clone()
        cfg.merge_from_list(list(opts))
        return model._replace(cfg=cfg).describe(digest)

    swapped = dict(reversed(model.classes.items()))
    assert swapped == model.classes and model._replace(classes=swapped).describe(digest) != known
    for key, value in [
        ("MODEL.DEVICE", "cuda"),
        ("MODEL.YOLO.NMS_THRESH_TEST", 0.3),
        ("MODEL.YOLO.SCORE_THRESH_TEST", 0.1),
        ("MODEL.YOLO.CLASS_MAP", [["cat", "dog"]]),
        ("MODEL.PIXEL_STD", [1.0, 1.0, 1.0]),
        ("TEST.DETECTIONS_PER_IMAGE", 3),
        ("TEST.AUG.ENABLED", True),
        ("TEST.DTYPE", "bfloat16"),
        ("INPUT.SIZE_TEST", 32),
    ]:
        assert describe_with(key, value) != known, key
    # How views are fused matters where there are some.
    views = describe_with("TEST.AUG.ENABLED", True)
    assert describe_with("TEST.AUG.ENABLED", True, "TEST.FUSION.NAME", "wbf") != views
    renamed = dataclasses.replace(model.weights, class_names=["dog", "cat"])
    assert model._replace(weights=renamed).describe(digest) != known
    for key in ("SEED", "DATALOADER.NUM_WORKERS", "TEST.EVAL_PERIOD", "MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN"):
        assert describe_with(key, 77) == known, key
    assert describe_with("TEST.FUSION.NAME", "wbf") == known


def test_one_run_at_a_time_from_the_first_model_to_the_end(run, tmp_path, mild_weights_file, others, monkeypatch):
    original = inference_run.predict_images
    titles = []

    def predict(*args, title, **kwargs):
        with pytest.raises(UserError, match=r"another infer\.py is writing to .*out"):
            run()
        titles.append(title)
        original(*args, title=title, **kwargs)

    monkeypatch.setattr(inference_run, "predict_images", predict)
    run(weights=[mild_weights_file, others[0]])
    assert titles == ["model 1 of 2", "model 2 of 2"]
    assert read(tmp_path / "out").keys() == {"predictions.json", "images.json"}, "and no lock is left"


def test_machines_must_have_the_same(monkeypatch, model, folder):
    images = list_images(str(folder)).images
    recipe = model.describe("")
    facts: list[dict] = []
    monkeypatch.setattr(recipes.comm, "all_gather", lambda x: facts.append(x) or facts)
    for change, name in [
        ({"recipes": [{**recipe, "weights": "b" * 64}]}, "the weights of model 1 changed"),
        ({"recipes": [{**recipe, "INPUT.SIZE_TEST": 7}]}, "INPUT.SIZE_TEST of model 1 changed"),
        ({"recipes": [recipe, recipe]}, "number of --weights changed from 1 to 2"),
        ({"budget": [3.0, []]}, "--max-hours with TEST.FALLBACKS changed from None"),
        ({"images": images[1:]}, "the images of --input changed"),
        ({"recipes": [{**recipe, "MODEL.DEVICE": "cuda"}]}, "MODEL.DEVICE of model 1 changed from 'cpu' to 'cuda'"),
        ({"recipes": [{**recipe, "MODEL.DEVICE": "cpu:0"}]}, None),
    ]:
        facts.clear()
        own = {"recipes": [recipe], "images": images, "budget": None}
        recipes.check_same_everywhere(**own)
        if name is None:
            recipes.check_same_everywhere(**{**own, **change})
            continue
        with pytest.raises(UserError, match=f"started differently: {name}"):
            recipes.check_same_everywhere(**{**own, **change})


def test_changed_images_start_over(run, folder, tmp_path, interrupted, caplog):
    interrupted(3)
    (folder / "4.png").rename(folder / "5.png")
    run()
    assert "Starting over: the images changed since the interrupted run" in caplog.text
    run(output="whole")
    assert read(tmp_path / "out") == read(tmp_path / "whole")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: os.utime(folder / "0.png", ns=(0, 0)),
        lambda folder: (folder / "4.png").rename(folder / "5.png"),
        lambda folder: shutil.copy(folder / "0.png", folder / "5.png"),
        lambda folder: (folder / "4.png").unlink(),
    ],
    ids=["content", "name", "added", "removed"],
)
def test_the_digest_of_images_tells_changes(folder, change):
    digest = digest_images(list_images(str(folder)).images)
    change(folder)
    assert digest_images(list_images(str(folder)).images) != digest


@pytest.fixture(scope="module")
def others(make_weights, tmp_path_factory):
    """More models: one for larger images, and one with the classes' ids swapped."""
    folder = tmp_path_factory.mktemp("others")
    large = make_weights(folder / "large.pth", "INPUT.SIZE_TEST", 128, seed=1, std=0.01)
    return large, make_weights(folder / "swapped.pth", category_ids=(3, 7))


def test_several_models(run, tmp_path, interrupted, mild_weights_file, others, caplog):
    files = [mild_weights_file, others[0]]
    singles = [run(weights=[path], output=f"alone{i}").detections for i, path in enumerate(files)]
    assert [len(d) for d in singles] == [5 * 9, 5 * 9]
    both = Detections.concatenate(singles)
    for name in ("nms", "soft_nms", "wbf"):
        fused = run("TEST.FUSION.NAME", name, weights=files, output=name).detections
        assert len(fused) == 5 * 9, "the best of both"
        # Equal to 0.002 px, because boxes become corners in float32 on the way.
        distances = np.abs(fused.boxes[:, None] - both.boxes[None]).max(axis=2)
        is_old = ((distances < 0.002) & (fused.image_ids[:, None] == both.image_ids)).any(axis=1)
        # Only by averaging are there boxes that no model found; only by suppressing do all scores stay as they are.
        assert is_old.all() == (name != "wbf")
        assert np.isin(fused.scores, both.scores).all() == (name == "nms")
    interrupted(6, "TEST.FUSION.NAME", "wbf", weights=files)  # the second batch of the second model
    with caplog.at_level(logging.INFO):
        run("TEST.FUSION.NAME", "wbf", weights=files)
    assert "model 1 of 2: 5 of 5 images were done" in caplog.text
    assert "model 2 of 2: 2 of 5 images were done" in caplog.text
    assert read(tmp_path / "out") == read(tmp_path / "wbf")


def test_models_of_other_classes_are_refused(mild_weights_file, others):
    files = [str(mild_weights_file), str(others[1])]
    with pytest.raises(UserError, match=r"mild.pth has cat \(7\), dog \(3\), and .*swapped.pth has cat \(3\)"):
        load_models(None, files, CPU, default_config="")


def test_a_time_budget_is_chosen_once(run, tmp_path, interrupted, monkeypatch, caplog):
    # The config as it is takes longer than there is, without views and at half the size it does not.
    monkeypatch.setattr(inference_run, "measure_speed", lambda cfg, *args: 1e6 if cfg.TEST.AUG.ENABLED else 1e-6)
    opts = ("TEST.AUG.ENABLED", "True", "TEST.FALLBACKS", "[['TEST.AUG.ENABLED', False, 'INPUT.SIZE_TEST', 64]]")
    budget = TimeBudget(1.0, time.monotonic())
    run("INPUT.SIZE_TEST", "64", output="whole")
    interrupted(3, *opts, budget=budget)
    monkeypatch.setattr(inference_run, "measure_speed", None)
    with caplog.at_level(logging.INFO):
        run(*opts, budget=budget)
    assert "of 5 images were done" in caplog.text and "Starting over" not in caplog.text
    assert read(tmp_path / "out") == read(tmp_path / "whole")


def with_ids(folder, classes):
    images = list_images(str(folder))
    return images, choose_result_ids(images, classes, None, are_classes_numbered=False)


def test_a_submission_where_the_ids_are_the_challenges(folder, tmp_path):
    cfg, classes = get_cfg(), {"sedan": 1, "cart": 14}
    options, note = choose_submission(cfg, classes, *with_ids(folder, classes))
    assert options is None and "There is no image list" in note
    assert choose_submission(cfg, {"cat": 1}, *with_ids(folder, {"cat": 1})) == (None, "")
    infos = {"images": [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(len(SIZES))]}
    (tmp_path / "Test_Images_Information.json").write_text(json.dumps(infos))
    options, note = choose_submission(cfg, classes, *with_ids(folder, classes))
    assert options == (20_000_000, 50, {1: 0, 14: 0}, "compact") and note == ""
    cfg.merge_from_list(["TEST.SUBMISSION_MB", "1.5", "TEST.SUBMISSION_CLASS_FLOORS", "('cart=5',)"])
    assert choose_submission(cfg, classes, *with_ids(folder, classes))[0] == (1_500_000, 50, {1: 0, 14: 5}, "compact")
    with pytest.raises(UserError, match=r"TEST\.SUBMISSION_CLASS_FLOORS"):
        choose_submission(cfg, {"sedan": 1}, *with_ids(folder, {"sedan": 1}))
    cfg = get_cfg()
    options, note = choose_submission(cfg, {"cat": 15}, *with_ids(folder, {"cat": 15}))
    assert options is None and "not the challenge's" in note
