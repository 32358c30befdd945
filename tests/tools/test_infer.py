"""infer.py on images, with annotations and in a time budget, and on videos, in this process."""

import contextlib
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from parking.data.decoding.orientation import turn
from parking.utils.marks import MARK_NAME

CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "TEST.DETECTIONS_PER_IMAGE", "9")


def make_picture(seed, height=60, width=96):
    small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), make_picture(i))
    return folder


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "drive.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (96, 60))
    for i in range(5):
        writer.write(make_picture(i))
    writer.release()
    return path


@pytest.fixture
def infer(mild_weights_file, tmp_path, run_here):
    def infer(path, *args, weights=(), opts=()):
        files = [arg for w in weights or [mild_weights_file] for arg in ("--weights", w)]
        return run_here("infer.py", "--input", path, "--output", tmp_path / "out", *files, *args, *CPU, *opts)

    return infer


def test_scores_and_pictures_beside_annotations(infer, folder, tmp_path):
    code, _, err = infer(folder)
    assert code == 0, err
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    # The annotations are what was found in the second image.
    truth = [{k: row[k] for k in ("category_id", "bbox")} | {"image_id": 70} for row in found if row["image_id"] == 2]
    categories = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
    content = {"images": [{"id": 70, "file_name": "1.png"}], "annotations": truth, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    code, out, err = infer(folder, "--annotations", tmp_path / "truth.json", "--visualize", "2", "--min-score", "0")
    assert code == 0, err
    assert "on the 1 annotated images: AP 100.00, AP50 100.00, AP75 100.00" in out
    widths = [cv2.imread(str(tmp_path / "out" / "visualizations" / f"{i}.png.png")).shape[1] for i in (0, 1)]
    assert widths[0] == 96 and widths[1] > 2 * 96, "both, side by side"
    assert f"visualizations: {tmp_path}/out/visualizations" in out


def test_results_have_the_ids_of_the_annotations(infer, folder, tmp_path):
    """The scores that are printed are those that pycocotools gives the file."""
    categories = [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}]
    content = {"images": [{"id": 10 + i, "file_name": f"{2 - i}.png"} for i in range(3)], "categories": categories}
    boxes = [(10, 3, [3, 4, 50, 40]), (11, 1, [0, 0, 40, 60]), (11, 3, [9, 5, 60, 50]), (12, 1, [20, 2, 70, 58])]
    keys = ("image_id", "category_id", "bbox", "id", "area", "iscrowd")
    rows = [(*box, i, box[2][2] * box[2][3], 0) for i, box in enumerate(boxes, start=1)]
    content["annotations"] = [dict(zip(keys, row, strict=True)) for row in rows]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    code, out, err = infer(folder, "--annotations", path)
    assert code == 0 and "made up" not in out, err
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        scores = COCOeval(truth, truth.loadRes(str(tmp_path / "out" / "predictions.json")), "bbox")
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    assert scores.stats[1] > 0
    shown = ", ".join(
        f"{name} {100 * score:.2f}" for name, score in zip(("AP", "AP50", "AP75"), scores.stats, strict=False)
    )
    assert f"on the 3 annotated images: {shown}" in out
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {image["file_name"]: image["id"] for image in images} == {"2.png": 10, "1.png": 11, "0.png": 12}


def test_output_among_the_input(infer, folder, tmp_path):
    """The next run does not read what this one has drawn, and the user's files stay."""
    mine = folder / "out" / "visualizations" / "mine.png"
    mine.parent.mkdir(parents=True)
    cv2.imwrite(str(mine), make_picture(9))
    results = []
    for _ in range(2):
        code, out, err = infer(folder, "--output", folder / "out", "--visualize", "4")
        assert code == 0 and "image ids: made up" in out, err
        results.append([(folder / "out" / f"{name}.json").read_bytes() for name in ("predictions", "images", "ids")])
    assert results[0] == results[1] and b"visualizations/mine.png" in results[0][1]
    assert "not looked at: 5 results that this product wrote" in out
    # Somebody else's files are not replaced by pictures or results of the same name.
    for name in ("visualizations/0.png.png", "predictions.json", "images.json"):
        path = folder / "out" / name
        before = path.read_bytes()
        path.write_bytes(b"mine")
        code, _, err = infer(folder, "--output", folder / "out", "--visualize", "4")
        assert code == 1 and name in err and path.read_bytes() == b"mine"
        path.write_bytes(before)


def test_one_orientation_in_all_results(infer, tmp_path):
    """Boxes, sizes, pictures and scores refer to the upright picture, or to the stored one where a json states that."""
    picture, folder = make_picture(0), tmp_path / "photos"
    folder.mkdir()
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = turn(picture, {6: 8, 8: 6}.get(orientation, orientation))
        Image.fromarray(stored).save(folder / f"{orientation}.png", exif=exif)
    code, _, err = infer(folder, "--visualize", "8", "--min-score", "0")
    assert code == 0, err
    out = tmp_path / "out"
    boxes = {}
    for row in json.loads((out / "predictions.json").read_text()):
        boxes.setdefault(row.pop("image_id"), []).append(row)
    assert len(boxes) == 8 and all(found == boxes[1] for found in boxes.values())
    images = json.loads((out / "images.json").read_text())
    assert {(image["width"], image["height"]) for image in images} == {(96, 60)}
    drawn = [cv2.imread(str(out / "visualizations" / f"{i}.png.png")) for i in range(1, 9)]
    assert all(np.array_equal(one, drawn[0]) for one in drawn)
    # A json of upright sizes, and one of stored sizes.
    for is_upright in (True, False):
        content = {"categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}], "annotations": [], "images": []}
        for i in (1, 5, 6, 7, 8):
            size = (96, 60) if is_upright or i == 1 else (60, 96)
            content["images"].append({"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]})
        (tmp_path / "truth.json").write_text(json.dumps(content))
        code, _, err = infer(folder, "--annotations", tmp_path / "truth.json")
        assert code == 0, err
        images = {image["file_name"]: image for image in json.loads((out / "images.json").read_text())}
        expected = {image["file_name"]: image for image in content["images"]}
        for name, image in expected.items():
            assert (images[name]["width"], images[name]["height"]) == (image["width"], image["height"])


def test_interrupted_while_drawing(infer, folder, tmp_path, monkeypatch):
    """Results are kept until the pictures are drawn as well."""

    def fail(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("parking.inference.sinks.pictures.PictureWriter.draw", fail)
        code, out, _ = infer(folder, "--visualize", "1")
    assert code == 130 and "the same command goes on from there" in out
    monkeypatch.setattr("parking.inference.image_pipeline.predict_images", None)
    code, out, err = infer(folder, "--visualize", "1")
    assert code == 0, err
    assert "3 of 3 images were done before the interruption" in out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {MARK_NAME, "predictions.json", "images.json", "ids.json", "visualizations"}


def test_a_time_budget(infer, folder, tmp_path):
    views = ("TEST.AUG.ENABLED", "True")
    code, out, err = infer(folder, "--max-hours", "10", opts=views)
    assert code == 0, err
    assert "the config as it is takes" in out and out.count(": chosen") == 1
    with_views = (tmp_path / "out" / "predictions.json").read_bytes()
    code, out, err = infer(folder, "--max-hours", "1e-9", opts=views)
    assert code == 0, err
    assert "no time is left" in out and "no image is left out" in out
    assert {row["id"] for row in json.loads((tmp_path / "out" / "images.json").read_text())} == {1, 2, 3}
    assert with_views != (tmp_path / "out" / "predictions.json").read_bytes()


def test_pictures_of_an_earlier_run_are_named(infer, folder, tmp_path):
    assert infer(folder, "--visualize", "1")[0] == 0
    _, out, _ = infer(folder)
    assert f"the pictures in {tmp_path}/out/visualizations are an earlier run's" in out
    assert "no submission.json" not in out, "nobody expects one of cats and dogs"


def test_several_models(infer, folder, mild_weights_file, weights_file):
    code, out, err = infer(folder, weights=[mild_weights_file, weights_file], opts=("TEST.FUSION.NAME", "wbf"))
    assert code == 0, err
    assert "27 boxes in 3 images" in out


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_video(infer, video, tmp_path, mild_weights_file, weights_file):
    code, out, err = infer(video, "--min-score", "0.1")
    assert code == 0, err
    lines = read_lines(tmp_path / "out" / "drive.jsonl")
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4]
    assert f"{sum(len(line['detections']) for line in lines)} boxes in 5 frames" in out
    for line in lines:
        names = [d["class_name"] for d in line["detections"]]
        assert line["counts"] == {name: names.count(name) for name in sorted(set(names))}
        assert all((d["class_name"], d["category_id"]) in {("cat", 7), ("dog", 3)} for d in line["detections"])
    assert cv2.VideoCapture(str(tmp_path / "out" / "drive.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 5

    code, out, err = infer(video, "--min-score", "0.1", "--no-video", weights=[mild_weights_file, weights_file])
    assert code == 0, err
    assert not (tmp_path / "out" / "drive.mp4").exists()
    assert read_lines(tmp_path / "out" / "drive.jsonl") != lines


def test_the_frames_of_a_video(infer, folder, tmp_path):
    (folder / "1.png").write_bytes(b"no image")
    code, _, err = infer(folder, "--frames", "--fps", "4")
    assert code == 3 and "1.png" in err
    lines = read_lines(tmp_path / "out" / "in.jsonl")
    assert [(line["file_name"], line["time"]) for line in lines] == [("0.png", 0.0), ("2.png", 0.5)]


@pytest.mark.parametrize(
    ("args", "code", "sentence"),
    [
        (["--input", "{video}", "--max-hours", "3"], 2, "--max-hours is for images"),
        (["--input", "{video}", "--num-gpus", "2"], 2, "--num-gpus is for images"),
        (["--input", "{video}", "--visualize", "2"], 2, "--visualize is for images"),
        (["--input", "{video}", "--fps", "2"], 2, "--fps is for --frames"),
        (["--input", "{folder}", "--frames", "--fps", "-1"], 1, "-1.0 frames a second are not possible; give a number"),
        (["--input", "{folder}", "--no-video"], 2, "--no-video is for videos"),
        (["--input", "{video}", "--frames"], 2, "--frames is for a folder"),
        (["--input", "{video}", "--dist-url", "tcp://a:1"], 2, "--dist-url is for images"),
        (["--input", "{folder}", "--visualize", "-1"], 2, "--visualize"),
        (["--input", "{folder}", "--min-score", "0.5"], 2, "give --visualize N, too"),
        (["--input", "{folder}", "--korean"], 2, "give --visualize N, too"),
        (["--input", "{folder}", "--min-score", "7", "--visualize", "1"], 2, "--min-score must be from 0 to 1"),
        (["--input", "{folder}", "--max-hours", "0"], 2, "--max-hours must be above 0"),
        (["--input", "none.mp4"], 1, "none.mp4"),
        (["--input", "{folder}", "--annotations", "none.json"], 1, "'none.json' cannot be opened"),
        (["--input", "{folder}", "--visualize", "1", "--korean"], 1, "no Korean name for the class 'cat'"),
        (["--input", "{video}", "--korean"], 1, "no Korean name for the class 'cat'"),
        (["--input", "{folder}", "TEST.IMS_PER_BATCH", "-1"], 1, "TEST.IMS_PER_BATCH is -1"),
        (["--input", "{folder}", "TEST.DTYPE", "int8"], 1, "TEST.DTYPE is 'int8'"),
        (["--input", "{folder}", "TEST.FUSION.NAME", "best"], 1, "TEST.FUSION.NAME"),
    ],
)
def test_mistakes_are_one_sentence(run_here, mild_weights_file, folder, video, tmp_path, args, code, sentence):
    args = [arg.format(folder=folder, video=video) for arg in args]
    done, _, err = run_here("infer.py", "--weights", mild_weights_file, "--output", tmp_path / "out", *args)
    assert done == code and sentence in err, err
    assert not list((tmp_path).glob("out/*.json"))
