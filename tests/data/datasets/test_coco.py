import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from parking.challenge.registration import register_datasets_from_config
from parking.config import get_cfg
from parking.data.checking.findings import KINDS
from parking.data.datasets.coco import load_columns, register_coco_datasets, to_dicts
from parking.utils.errors import UserError

NAMES = {3: "car", 7: "truck", 90: "person"}
CATEGORIES = [{"id": 90, "name": "person"}, {"id": 3, "name": "car"}, {"id": 7, "name": "truck"}]


def load_dicts(*args, **kwargs):
    return to_dicts(load_columns(*args, **kwargs))


def make_content(**changes):
    content = {
        "images": [
            {"id": 20, "file_name": "b.png", "height": 30, "width": 40},
            {"id": 10, "file_name": "a.png", "height": 31, "width": 41},
        ],
        "annotations": [
            {"id": 1, "image_id": 10, "category_id": 90, "bbox": [1, 2.5, 3, 4]},
            {"id": 2, "image_id": 10, "category_id": 3, "bbox": [0.0, 0.0, 9.5, 8.5], "iscrowd": 1},
        ],
        "categories": CATEGORIES,
    }
    return {**content, **changes}


def write(tmp_path, content, name="set.json"):
    """Write a json, with the images a.png and b.png beside it; return its path."""
    for image in ("a.png", "b.png"):
        (tmp_path / image).touch()
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def registered():
    """Return names that a test may register; they are removed after it."""
    names = ["t_train", "t_val", "t_other"]
    yield names
    for name in names:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def test_load(tmp_path):
    json_file = write(tmp_path, make_content())
    assert load_dicts(json_file, str(tmp_path), NAMES) == [
        {"file_name": f"{tmp_path}/b.png", "image_id": 20, "height": 30, "width": 40, "annotations": []},
        {
            "file_name": f"{tmp_path}/a.png",
            "image_id": 10,
            "height": 31,
            "width": 41,
            "annotations": [
                {"bbox": [1, 2.5, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 2, "iscrowd": 0},
                {"bbox": [0.0, 0.0, 9.5, 8.5], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 1},
            ],
        },
    ]


IMAGE = {"id": 1, "file_name": "a.png", "height": 3, "width": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"id": 77, "image_id": 10, "category_id": 0, "bbox": [1, 2, 3, 4]}]}, "77 .* 0.* 3, 7, 90"),
        ({"annotations": None}, "'annotations'"),
        ({"images": [{**IMAGE, "width": "4"}]}, "image 1 .*'4' x 3"),
    ],
)
def test_bad_content_names_file_and_entry(tmp_path, changes, message):
    json_file = write(tmp_path, make_content(**changes))
    with pytest.raises(UserError, match=rf"set\.json.*{message}"):
        load_dicts(json_file, str(tmp_path), NAMES)


def test_what_is_not_json_and_missing_files_name_the_file(tmp_path):
    write(tmp_path, "[1, 2]", "list.json")
    for name in ("list.json", "missing.json"):
        with pytest.raises(UserError, match=name):
            load_dicts(str(tmp_path / name), str(tmp_path), NAMES)


def test_register_sparse_categories(tmp_path, registered):
    json_file = write(tmp_path, make_content())
    entries = [["t_train", json_file, str(tmp_path)], ("t_val", json_file, str(tmp_path))]
    register_coco_datasets(entries)
    register_coco_datasets(entries)
    metadata = MetadataCatalog.get("t_val")
    assert metadata.thing_classes == ["car", "truck", "person"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1, 90: 2}
    assert (metadata.json_file, metadata.image_root) == (json_file, str(tmp_path))
    assert metadata.evaluator_type == "coco"
    assert len(set(metadata.thing_colors)) == 3
    assert [a["category_id"] for a in DatasetCatalog.get("t_train")[1]["annotations"]] == [2, 0]


def test_register_reads_a_changed_json_again(tmp_path, registered):
    json_file = write(tmp_path, make_content())
    register_coco_datasets([["t_train", json_file, str(tmp_path)]])
    assert len(DatasetCatalog.get("t_train")) == 2
    write(tmp_path, make_content(images=[IMAGE], annotations=[], categories=[{"id": 3, "name": "bike"}]))
    # What was loaded stays as it is until it is registered again.
    assert len(DatasetCatalog.get("t_train")) == 2
    register_coco_datasets([["t_train", json_file, str(tmp_path)]])
    assert MetadataCatalog.get("t_train").thing_classes == ["bike"]
    assert len(DatasetCatalog.get("t_train")) == 1


def test_register_refuses_different_classes(tmp_path, registered):
    first = write(tmp_path, make_content(), "first.json")
    second = write(tmp_path, make_content(categories=CATEGORIES[:2]), "second.json")
    with pytest.raises(UserError, match=r"'t_train' and 't_val'.*car, truck, person"):
        register_coco_datasets([["t_train", first, str(tmp_path)], ["t_val", second, str(tmp_path)]])


def test_register_refuses_a_taken_name(tmp_path, registered):
    json_file = write(tmp_path, make_content())
    other = write(tmp_path, make_content(), "other.json")
    register_coco_datasets([["t_train", json_file, str(tmp_path)]])
    for name in ("t_train", "coco_2017_val"):
        with pytest.raises(UserError, match=rf"DATASETS\.COCO.*'{name}'"):
            register_coco_datasets([[name, other, str(tmp_path)]])


def test_register_refuses_bad_categories(tmp_path, registered):
    json_file = write(tmp_path, make_content(categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]))
    with pytest.raises(UserError, match=r"set\.json.*id 1"):
        register_coco_datasets([["t_train", json_file, str(tmp_path)]])


@pytest.mark.parametrize("entry", ["abc", ["a", "b"], ["a", "b", 3], 5, []])
def test_register_refuses_a_malformed_entry(entry):
    with pytest.raises(UserError, match=r"DATASETS\.COCO.*name, json file, image folder"):
        register_coco_datasets([entry])


def test_register_refuses_a_missing_folder(tmp_path, registered):
    with pytest.raises(UserError, match="nowhere"):
        register_coco_datasets([["t_train", write(tmp_path, make_content()), str(tmp_path / "nowhere")]])


def make_cfg(train, test=(), coco=()):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST, cfg.DATASETS.COCO = tuple(train), tuple(test), list(coco)
    return cfg


def test_config_refuses_unknown_mixed_and_reserved_data_sets(tmp_path, registered):
    entry = ["t_train", write(tmp_path, make_content()), str(tmp_path)]
    with pytest.raises(UserError, match="'t_typo'"):
        register_datasets_from_config(make_cfg(["t_train", "t_typo"], coco=[entry]))
    with pytest.raises(UserError, match=r"'t_train' and 'parking_val'.*classes"):
        register_datasets_from_config(make_cfg(["t_train"], ["parking_val"], [entry]))
    with pytest.raises(UserError, match=r"DATASETS\.COCO.*'parking_train'"):
        register_datasets_from_config(make_cfg(["t_train"], coco=[entry, ["parking_train", *entry[1:]]]))


def test_only_the_data_sets_that_are_used_are_checked(tmp_path, registered, monkeypatch):
    entry = ["t_val", write(tmp_path, make_content()), str(tmp_path)]
    cfg = make_cfg(["parking_train"], ["t_val"], [entry])
    registrations = []
    monkeypatch.setattr(
        "parking.challenge.registration.register_parking_datasets", lambda *args, **kwargs: registrations.append(args)
    )
    register_datasets_from_config(cfg, cfg.DATASETS.TEST)
    assert MetadataCatalog.get("t_val").thing_classes == ["car", "truck", "person"]
    assert registrations == []


FLAWED = [
    {"id": 1, "image_id": 10, "category_id": 3, "bbox": [38, -2, 10, 7]},
    {"id": 2, "image_id": 10, "category_id": 5, "bbox": [1, 2, 3, 4]},
    {"id": 3, "image_id": 20, "category_id": 7, "bbox": [1, 2, 3, 4]},
    {"id": 4, "image_id": 30, "category_id": 7, "bbox": [1, 2, 3, 4]},
]
GONE = {"id": 30, "file_name": "gone.png", "height": 5, "width": 5}


@pytest.fixture
def flawed_json(tmp_path):
    content = make_content(annotations=FLAWED)
    content["images"].append(GONE)
    return write(tmp_path, "\ufeff" + json.dumps(content))


def test_strict_stops_at_the_first_and_tells_of_the_rest(tmp_path, flawed_json):
    with pytest.raises(UserError, match=r"set\.json.*gone\.png.*1 more.*DATASETS\.POLICY repair.*check_data\.py"):
        load_dicts(flawed_json, str(tmp_path), NAMES)


def test_repair_leaves_out_clips_counts_and_logs_once(tmp_path, flawed_json, caplog, registered):
    with caplog.at_level("WARNING"):
        register_coco_datasets([["t_train", flawed_json, str(tmp_path)]], policy="repair")
        dicts = [DatasetCatalog.get("t_train") for _ in range(2)][1]
    # Image 10 is 41 wide: the first box ends at 48 and begins 2 above the border.
    assert [[a["bbox"] for a in d["annotations"]] for d in dicts] == [[[1, 2, 3, 4]], [[38, 0, 3, 5]]]
    lines = [line.split(maxsplit=1) for line in caplog.text.splitlines()[1:]]
    assert len(caplog.records) == 1
    assert lines == [
        ["1", f"{KINDS['json_bom'].title}: mended"],
        ["1", f"{KINDS['image_missing'].title}: left out"],
        ["1", f"{KINDS['category_unknown'].title}: left out"],
        ["1", f"{KINDS['bbox_partly_outside'].title}: mended"],
        ["1", f"{KINDS['class_without_boxes'].title}: kept"],
        ["1", "annotations of the images that are left out: left out"],
    ]


def test_nothing_to_repair_is_an_error(tmp_path):
    json_file = write(tmp_path, make_content(images=[GONE], annotations=[]))
    with pytest.raises(UserError, match=r"set\.json.*gone\.png"):
        load_dicts(json_file, str(tmp_path), NAMES, policy="repair")


def test_a_whole_set_of_wrong_boxes_stops_even_repair_and_comes_first(tmp_path):
    boxes = [{"id": i, "image_id": 10, "category_id": 3, "bbox": [0.1, 0.2, 0.3, 0.4]} for i in range(20)]
    json_file = write(tmp_path, make_content(annotations=[*boxes, FLAWED[1]]))
    for policy in ("strict", "repair"):
        with pytest.raises(UserError, match=r"set\.json' has boxes that look divided") as e:
            load_dicts(json_file, str(tmp_path), NAMES, policy=policy)
        assert "POLICY" not in str(e.value)


def test_config_passes_the_policy_and_nothing_is_written_to_the_data(tmp_path, registered):
    json_file = write(tmp_path, make_content(images=[{"id": 10, "file_name": "c.png"}, GONE]))
    Image.new("RGB", (11, 9)).save(tmp_path / "c.png")
    before = sorted(tmp_path.iterdir())
    cfg = make_cfg(["t_train"], coco=[["t_train", json_file, str(tmp_path)]])
    cfg.DATASETS.POLICY = "repair"
    register_datasets_from_config(cfg)
    assert [(d["height"], d["width"]) for d in DatasetCatalog.get("t_train")] == [(9, 11)]
    assert sorted(tmp_path.iterdir()) == before


def test_split_all_takes_parking_val_out_of_what_is_evaluated(caplog):
    cfg = make_cfg(["parking_train"], ["parking_val"])
    cfg.DATASETS.SPLIT = "all"
    with caplog.at_level("INFO"):
        register_datasets_from_config(cfg)
    assert cfg.DATASETS.TEST == ()
    assert "parking_val is empty" in caplog.text
    cfg.DATASETS.TEST = ("parking_val",)
    with pytest.raises(UserError, match="parking_val"):
        register_datasets_from_config(cfg, cfg.DATASETS.TEST)
    cfg.freeze()
    with pytest.raises(UserError, match="parking_val"):
        register_datasets_from_config(cfg)
