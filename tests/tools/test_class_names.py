"""Class names of all kinds that can work, through all tools: stored exactly, shown escaped, found again."""

import json
import unicodedata

import cv2
import numpy as np
import pytest

from parking import Detector  # with torch, which logs to the stderr that it is imported with
from parking.utils.class_names import class_key

NAMES = [
    "tall\u00a0van",
    "ca\u200br",
    "\ufeffbus",
    "school\tbus",
    "truck\r",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\u00e9lan",
    "\uc138\ub2e8",
    "taxi  ",
    " cart",
    "",
    "x" * 5000,
    "\u202egnikrap",
    "a/b",
    "../up",
    "c=d",
    "e: f",
    "AP75-x",
    "1e3",
    "\x1b[31mred",
    "Bus",
    "<b>|x|",
]
NUMBERS = [1, 2.5]
# The same names, spelled as somebody else might write them.
OTHERS = [unicodedata.normalize("NFD", class_key(name)) for name in NAMES]
OTHERS = [name if class_key(name) else "\u200b" for name in OTHERS]


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(3):
        small = np.random.default_rng(i).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), cv2.resize(small, (96, 64), interpolation=cv2.INTER_CUBIC))
    return tmp_path / "images"


def write_json(path, names, category_ids, image_ids=(1, 2, 3)):
    boxes = [
        {"id": 100 * i + c, "image_id": image_id, "category_id": category_id, "bbox": [3 * c, 2 * c, 20, 15]}
        for i, image_id in enumerate(image_ids)
        for c, category_id in enumerate(category_ids)
    ]
    sized = [{"id": i, "file_name": f"{n}.png", "width": 96, "height": 64} for n, i in enumerate(image_ids)]
    categories = [{"id": i, "name": name} for i, name in zip(category_ids, names, strict=True)]
    path.write_text(json.dumps({"images": sized, "annotations": boxes, "categories": categories}))
    return path


@pytest.fixture
def chain(run_here, images, tmp_path):
    """``chain(train json, val json)``: everything that one does with data; gives the folder of the training."""
    numbers = iter(range(100))

    def chain(train, val):
        number, output = next(numbers), tmp_path / "out"
        names = [f"names_{role}_{tmp_path.name}_{number}" for role in ("train", "val")]
        data = ["DATASETS.COCO", f"[['{names[0]}', '{train}', '{images}'], ['{names[1]}', '{val}', '{images}']]"]
        data += ["DATASETS.TRAIN", f"('{names[0]}',)", "DATASETS.TEST", f"('{names[1]}',)"]
        config = tmp_path / "config.yaml"
        config.write_text(
            "MODEL: {DEVICE: cpu, YOLO: {NUM_CLASSES: 0, WIDTH_MULTIPLE: 0.125}}\n"
            "INPUT: {SIZE_TRAIN: [64, 64], SIZE_TEST: 64}\n"
            "SOLVER: {MAX_ITER: 2, IMS_PER_BATCH: 2, WARMUP_ITERS: 1, NOMINAL_BATCH_SIZE: 0, CHECKPOINT_PERIOD: 1}\n"
            "DATALOADER: {NUM_WORKERS: 0}\nTEST: {DETECTIONS_PER_IMAGE: 20}\nSEED: 1\n"
        )
        options = ("--config-file", config, "OUTPUT_DIR", output, *data)

        def run(*args):
            code, out, err = run_here(*args)
            assert code == 0, err
            assert not any(char in out + err for char in "\x1b\u200b\u202e\ufeff"), "shown as it is"
            return out

        run("check_data.py", "--coco", train, images, "--output", tmp_path / "check")
        run("train_net.py", *options)
        (output / "last_checkpoint").write_text("model_0000000.pth")
        for name in ("model_final.pth", "model_0000001.pth", "finished"):
            (output / name).unlink()
        assert "model_0000000.pth" in run("train_net.py", "--resume", *options)
        run("train_net.py", "--eval-only", *options)
        weights = output / "model_final.pth"
        run(
            *("infer.py", "--input", images, "--weights", weights, "--output", output / "found", "--min-score", "0"),
            *("--annotations", val, "--visualize", "1", "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"),
        )
        run("visualize_data.py", "--source", "annotation", "--output", tmp_path / "pictures", *options)
        return output

    return chain


def test_class_names_of_all_kinds(chain, tmp_path, images):
    # The annotations to evaluate have them in another order and under other ids.
    train = write_json(tmp_path / "train.json", NAMES + NUMBERS, range(1, len(NAMES) + 3))
    others = [*reversed(OTHERS), *map(str, NUMBERS)]
    output = chain(train, write_json(tmp_path / "val.json", others, range(50, 50 + len(others))))
    detector = Detector(output / "model_final.pth", device="cpu", score_threshold=0)
    assert list(detector.thing_classes) == NAMES + [str(number) for number in NUMBERS]
    detector(images / "0.png").save(tmp_path / "detector.png")
    metrics = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert {f"bbox/AP-{name}" for name in NAMES} <= metrics[-1].keys()
