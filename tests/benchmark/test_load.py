import json

from detectron2.data import DatasetCatalog

from parking.benchmark.load import run_load_benchmark, write_fake_dataset
from parking.challenge.conditions import parse_conditions


def test_lines_name_seconds_and_memory():
    lines = list(run_load_benchmark(num_images=300, num_boxes=900))
    assert lines[0] == "300 images, 900 boxes"
    assert len(lines) == 4
    assert all(" s" in line and "MB" in line for line in lines[1:])
    assert "parking_train" not in DatasetCatalog


def test_the_fake_data_look_like_the_challenge(tmp_path):
    write_fake_dataset(str(tmp_path), 200, 500)
    content = json.loads((tmp_path / "train/label/Train.json").read_text(encoding="utf-8"))
    names = [image["file_name"] for image in content["images"]]
    assert len(set(names)) == 200
    assert len(content["annotations"]) == 500
    assert all(len(parse_conditions(name)) == 5 for name in names)
    assert sorted(path.name for path in (tmp_path / "train/images").iterdir()) == sorted(names)
