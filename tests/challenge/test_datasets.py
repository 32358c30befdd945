import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from parking.challenge import datasets as parking
from parking.challenge.classes import CLASS_NAMES, CLASS_NAMES_KO
from parking.challenge.datasets import register_parking_datasets
from parking.data.checking.findings import KINDS
from parking.utils.constants import PARKING_DATASETS
from parking.utils.errors import UserError

NUM_SEQUENCES, NUM_FRAMES = 10, 5
NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "train/images").mkdir(parents=True)
    (tmp_path / "train/label").mkdir()
    (tmp_path / "test/images").mkdir(parents=True)
    ids = np.arange(NUM_SEQUENCES * NUM_FRAMES)
    images = [
        {"id": int(i) + 100, "file_name": NAME.format(i // NUM_FRAMES, i), "height": 20, "width": 30} for i in ids
    ]
    annotations = [
        {"image_id": image["id"], "category_id": i % 14 + 1, "bbox": [1, 2, 3, 4]}
        for i, image in enumerate(images)
        if i % 2
    ]
    for image in images:
        (tmp_path / "train/images" / image["file_name"]).touch()
    content = {"images": images, "annotations": annotations}
    (tmp_path / "train/label/Train.json").write_text(json.dumps(content), encoding="utf-8")
    tests = [{"id": 900, "file_name": "1c-b.png"}, {"id": 800, "file_name": "0a-d.png"}]
    (tmp_path / "Test_Images_Information.json").write_text(json.dumps({"images": tests}))
    for image in tests:
        Image.new("RGB", (8, 6)).save(tmp_path / "test/images" / image["file_name"])
    return tmp_path


def edit(json_file, change):
    content = json.loads(json_file.read_text(encoding="utf-8"))
    change(content)
    json_file.write_text(json.dumps(content), encoding="utf-8")


def get_ids(name):
    return {d["image_id"] for d in DatasetCatalog.get(name)}


def test_the_four_data_sets(root):
    register_parking_datasets(str(root))
    everything = set(range(100, 150))
    dicts = DatasetCatalog.get("parking_trainval")
    assert {d["image_id"] for d in dicts} == everything
    assert [len(d["annotations"]) for d in dicts] == [0, 1] * 25, "images without boxes are kept"
    val_ids = get_ids("parking_val")
    assert get_ids("parking_train") == everything - val_ids
    # 0.12 of 50 images are 6; a sequence has 5.
    assert val_ids
    assert len(val_ids) % NUM_FRAMES == 0
    dicts = DatasetCatalog.get("parking_test")
    assert [d["image_id"] for d in dicts] == [900, 800]
    assert "annotations" not in dicts[0]
    assert (dicts[0]["height"], dicts[0]["width"]) == (6, 8)
    assert dicts[0]["file_name"] == str(root / "test/images/1c-b.png")


def test_metadata_needs_no_file():
    register_parking_datasets("/nonexistent/root")
    for name in PARKING_DATASETS:
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes == list(CLASS_NAMES)
        assert metadata.thing_classes_ko == list(CLASS_NAMES_KO)
        assert metadata.thing_dataset_id_to_contiguous_id == {i: i - 1 for i in range(1, 15)}
        assert len(metadata.thing_colors) == 14


def test_registering_again_replaces(root, tmp_path):
    register_parking_datasets(str(tmp_path / "elsewhere"))
    register_parking_datasets(str(root), split="sequence", val_fraction=0.5)
    assert MetadataCatalog.get("parking_train").image_root == str(root / "train/images")
    assert 20 <= len(get_ids("parking_val")) <= 30


@pytest.fixture
def calls(monkeypatch):
    """What was read and divided, in this order."""
    result = []

    def record(name):
        function = getattr(parking, name)

        def call(*args, **kwargs):
            result.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(parking, name, call)

    record("load_columns")
    record("split_images")
    return result


def test_the_json_is_read_and_divided_once_per_registration(root, calls):
    for _ in range(2):
        register_parking_datasets(str(root))
        assert calls == []
        loaded = [DatasetCatalog.get(name) for name in ("parking_val", "parking_train", "parking_trainval")]
        assert [DatasetCatalog.get(name) for name in ("parking_val", "parking_train", "parking_trainval")] == loaded
        assert calls == ["load_columns", "split_images"]
        DatasetCatalog.get("parking_test")
        DatasetCatalog.get("parking_test")
        assert calls == ["load_columns", "split_images", "load_columns"]
        calls.clear()


def test_what_a_consumer_changes_stays_with_it(root):
    register_parking_datasets(str(root))
    expected = json.dumps(DatasetCatalog.get("parking_trainval"))
    for name in ("parking_trainval", "parking_train", "parking_val"):
        dicts = DatasetCatalog.get(name)
        for d in dicts:
            d["image_id"] = -1
            for annotation in d["annotations"]:
                annotation["category_id"] = 99
                annotation["bbox"][0] = 1000
            d["annotations"].append("more")
        dicts.clear()
    assert json.dumps(DatasetCatalog.get("parking_trainval")) == expected


def test_categories_that_the_json_calls_otherwise_are_told(root, caplog):
    names = {**dict(enumerate(CLASS_NAMES, start=1)), 3: "lorry", 5: "school bus "}
    categories = [{"id": i, "name": name} for i, name in names.items()]
    edit(root / "train/label/Train.json", lambda content: content.update(categories=categories))
    register_parking_datasets(root)
    with caplog.at_level("INFO"):
        DatasetCatalog.get("parking_trainval")
    assert f"1  {KINDS['class_name_other'].title}" in caplog.text


def test_a_failed_load_is_tried_again(root):
    json_file = root / "train/label/Train.json"
    text = json_file.read_text(encoding="utf-8")
    json_file.write_text("{", encoding="utf-8")
    register_parking_datasets(str(root))
    with pytest.raises(UserError, match=r"Train\.json'"):
        DatasetCatalog.get("parking_train")
    json_file.write_text(text, encoding="utf-8")
    assert len(get_ids("parking_trainval")) == 50


def test_entry_split_of_a_small_set(root):
    register_parking_datasets(str(root), split="entry")
    assert len(get_ids("parking_trainval")) == 50
    with pytest.raises(UserError, match="'sequence'"):
        DatasetCatalog.get("parking_train")


@pytest.mark.parametrize(
    ("missing", "name"),
    [
        ("train", "parking_train"),
        ("train/label/Train.json", "parking_val"),
        ("train/images", "parking_trainval"),
        ("Test_Images_Information.json", "parking_test"),
        ("test/images", "parking_test"),
        ("", "parking_train"),
    ],
)
def test_an_incomplete_tree_names_what_is_missing(root, missing, name):
    path = root / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    register_parking_datasets(str(root))
    with pytest.raises(UserError, match=rf"^'{path}[/'].*DATASETS\.ROOT.*datasets/README\.md"):
        DatasetCatalog.get(name)


def test_bad_settings_are_refused(root):
    with pytest.raises(UserError, match=r"DATASETS\.SPLIT 'random'"):
        register_parking_datasets(str(root), split="random")
    for fraction in (0, 1, -0.5, 12):
        with pytest.raises(UserError, match=r"DATASETS\.VAL_FRACTION"):
            register_parking_datasets(str(root), val_fraction=fraction)


def test_split_all(root):
    register_parking_datasets(str(root), split="all")
    assert get_ids("parking_train") == get_ids("parking_trainval") == set(range(100, 150))
    with pytest.raises(UserError, match=r"'all' .*parking_val"):
        DatasetCatalog.get("parking_val")


def test_the_sides_are_logged_once(root, caplog):
    register_parking_datasets(str(root), val_fraction=0.2)
    with caplog.at_level("INFO"):
        val_ids = get_ids("parking_val")
        get_ids("parking_train")
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert text.count("DATASETS.SPLIT sequence:") == 1
    rows = {(row := line.rsplit(maxsplit=3))[0]: row[1:] for line in text.splitlines() if "%" in line}
    assert rows["images"][:2] == [str(50 - len(val_ids)), str(len(val_ids))]
    # 25 images have a box; its class is that of the image's number, which is odd: 1, 3, ... of 14.
    assert sum(int(n) for name, (*sides, _) in rows.items() if name != "images" for n in sides) == 25
    assert rows["sedan"] == ["0", "0", "(0.0%)"]


def test_the_seed_chooses_other_sequences_and_the_order_of_the_json_does_not_matter(root):
    parts = []
    for seed in (0, 1, 2, 3, 0):
        register_parking_datasets(str(root), split_seed=seed)
        parts.append(frozenset(get_ids("parking_val")))
    assert len(set(parts)) > 1
    assert parts[0] == parts[-1]
    edit(root / "train/label/Train.json", lambda content: content["images"].reverse())
    register_parking_datasets(str(root))
    assert get_ids("parking_val") == parts[0]


def test_decomposed_names_on_disk_are_found(root):
    for path in (root / "train/images").iterdir():
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name).replace(".png", ".PNG")))
    register_parking_datasets(str(root))
    dicts = DatasetCatalog.get("parking_trainval")
    assert all(Path(d["file_name"]).is_file() for d in dicts)
    assert len(get_ids("parking_val")) == NUM_FRAMES


def test_a_cache_below_the_data_is_refused(root):
    from parking.challenge.registration import register_datasets_from_config
    from parking.config import get_cfg

    cfg = get_cfg()
    cfg.DATASETS.ROOT = str(root)
    cfg.INPUT.CACHE_DIR = str(root / "cache")
    with pytest.raises(UserError, match=r"INPUT\.CACHE_DIR '.*cache'"):
        register_datasets_from_config(cfg)
