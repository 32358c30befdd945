"""The tool that draws ground truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parking.challenge.classes import CLASS_COLORS
from parking.visualization.fonts import find_font

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tiny_scenes, tmp_path):
    """Two stages, which differ in the size of a sample."""
    (tmp_path / "one.yaml").write_text("INPUT: {SIZE_TRAIN: [96, 160]}\n")
    (tmp_path / "two.yaml").write_text("INPUT: {SIZE_TRAIN: [64, 128]}\n")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"_BASE_: {ROOT}/configs/Base-YOLO.yaml\n"
        f"SEED: 7\n"
        f"DATASETS: {{ROOT: {tiny_scenes}, SPLIT: all}}\n"
        f"MODEL: {{DEVICE: cpu}}\n"
        f"SOLVER: {{IMS_PER_BATCH: 4, STAGES: [[one, one.yaml], [two, two.yaml]]}}\n"
    )
    return path


def read_pictures(folder):
    return {path.name: np.array(Image.open(path)) for path in sorted(Path(folder).glob("*.png"))}


def has_color(pixels, class_id):
    return (pixels == np.array(CLASS_COLORS[class_id])).all(axis=-1).any()


def check_drawn(picture, image, class_ids):
    """The picture is the image except for frames and tags, which are the only ones with colours of classes."""
    assert picture.shape == image.shape
    drawn = (picture != image).any(axis=-1)
    assert drawn.mean() < 0.9
    assert {c for c in range(14) if has_color(picture[drawn], c)} <= set(class_ids)
    # The first box is drawn on top of all others.
    assert not len(class_ids) or has_color(picture[drawn], class_ids[0])


def test_annotations_at_full_size(run_here, config, tiny_scenes, tmp_path):
    output = tmp_path / "out"
    args = ["--source", "annotation", "--config-file", config, "--num-images", 5]
    code, out, err = run_here("visualize_data.py", *args, "--output", output)
    assert code == 0, err
    assert f"5 pictures written to {output}" in out
    content = json.loads((tiny_scenes / "train" / "label" / "Train.json").read_bytes())
    images = {Path(image["file_name"]).stem: image for image in content["images"]}
    pictures = read_pictures(output)
    assert {name[-10:] for name in pictures} == {f"_0000{k}.png" for k in range(1, 6)}
    for name, picture in pictures.items():
        record = images[name[:-10]]
        classes = [a["category_id"] - 1 for a in content["annotations"] if a["image_id"] == record["id"]]
        image = np.array(Image.open(tiny_scenes / "train" / "images" / record["file_name"]).convert("RGB"))
        check_drawn(picture, image, classes)

    find_font("세단")  # comes with a package that the project needs
    korean = tmp_path / "korean"
    code, _, err = run_here("visualize_data.py", *args, "--korean", "--output", korean)
    assert code == 0, err
    in_korean = read_pictures(korean)
    assert in_korean.keys() == pictures.keys()
    assert any((in_korean[name] != pictures[name]).any() for name in pictures)


def test_samples_as_the_model_sees_them(run_here, config, tmp_path):
    from parking.challenge.registration import register_datasets_from_config
    from parking.config.stages import read_stages
    from parking.data.build import build_train_loader, load_train_dicts

    output = tmp_path / "out"
    args = ["--source", "dataloader", "--config-file", config, "--output", output, "--num-images", 6, "--stage", "two"]
    code, out, err = run_here("visualize_data.py", *args)
    assert code == 0, err
    assert f"6 pictures written to {output}" in out

    cfg = read_stages(config, ["DATALOADER.NUM_WORKERS", "1"])[1].cfg
    register_datasets_from_config(cfg, cfg.DATASETS.TRAIN)
    cfg.MODEL.YOLO.NUM_CLASSES = 14
    batches = iter(build_train_loader(cfg, load_train_dicts(cfg), seed=7))
    samples = [*next(batches), *next(batches)][:6]
    pictures = read_pictures(output)
    names = [f"{Path(sample['file_name']).stem}_{k:05d}.png" for k, sample in enumerate(samples, start=1)]
    assert pictures.keys() == set(names)
    for name, sample in zip(names, samples, strict=True):
        assert pictures[name].shape == (64, 128, 3)
        check_drawn(pictures[name], sample["image"].permute(1, 2, 0).numpy(), sample["instances"].gt_classes.tolist())


def write_coco(folder):
    """Two green images of one name, and a third; a box 10, 8 to 50, 38 in each."""
    images = folder / "images"
    for name in ("a/same.png", "b/same.png"):
        (images / name).parent.mkdir(parents=True)
        Image.new("RGB", (80, 60), (0, 200, 0)).save(images / name)
    (images / "c.png").write_bytes((images / "a" / "same.png").read_bytes())
    names, size = ["a/same.png", "b/same.png", "c.png"], {"width": 80, "height": 60}
    box = {"category_id": 3, "bbox": [10, 8, 40, 30], "area": 1200, "iscrowd": 0}
    content = {
        "images": [{"id": k, "file_name": name, **size} for k, name in enumerate(names)],
        "annotations": [{"id": k, "image_id": k, **box} for k in range(3)],
        "categories": [{"id": 3, "name": "thing"}],
    }
    (folder / "labels.json").write_text(json.dumps(content))
    config = folder / "config.yaml"
    entry = json.dumps(["things", str(folder / "labels.json"), str(images)])
    config.write_text(f"_BASE_: {ROOT}/configs/Base-YOLO.yaml\nDATASETS: {{COCO: [{entry}], TRAIN: [things]}}\n")
    return config, images


def test_other_data(run_here, tmp_path):
    config, images = write_coco(tmp_path)
    data = (images / "c.png").read_bytes()
    (images / "c.png").write_bytes(data[:-20])
    args = ["--source", "annotation", "--config-file", config]
    output = tmp_path / "out"
    code, out, err = run_here("visualize_data.py", *args, "--output", output)
    assert code == 3, err
    assert "2 pictures written" in out
    assert "c.png'" in err
    pictures = read_pictures(output)
    assert set(pictures) == {"same_00001.png", "same_00002.png"}
    for picture in pictures.values():
        frame = picture[37, 10:50]
        assert (frame == frame[0]).all()
        assert tuple(frame[0]) != (0, 200, 0)
        assert (picture[20:36, 14:46] == (0, 200, 0)).all()

    code, _, err = run_here("visualize_data.py", "--source", "dataloader", *args[2:], "--output", output)
    assert (code, "set it to 1, or to 0" in err) == (1, True), err
    for more, message in [
        (["--output", images / "drawn"], f"{images}/drawn lies in the data folder {images}"),
        (["--output", output, "--korean"], "--korean: the data set things"),
        (["--output", output, "--stage", "x"], "--stage x"),
        (["--output", config], f"--output {config} "),
        (["--output", output, "DATASETS.TRAIN", "()"], "DATASETS.TRAIN"),
    ]:
        code, _, err = run_here("visualize_data.py", *args, *more)
        assert (code, message in err) == (1, True), err
    assert not (images / "drawn").exists()
    assert run_here("visualize_data.py", *args, "--num-images", 0)[0] == 2
