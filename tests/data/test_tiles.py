"""Compare mosaics that are painted tile by tile, with and without a cache, with one warped canvas of all tiles."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from parking.data.cache import ImageCache
from parking.data.dataset_mapper import TrainDatasetMapper
from parking.data.image_io import UnreadableImageError
from parking.data.tiles import TileReader
from parking.data.transforms.mosaic import compute_tile_offset, crop_to_canvas
from parking.data.transforms.warp import WarpTransform
from parking.utils.errors import UserError

PLAIN_COLORS = {"HSV_H": 0.0, "HSV_S": 0.0, "HSV_V": 0.0}


@pytest.fixture
def photos(tmp_path):
    """Return dicts of smooth pictures, in which a shift by one pixel shows; some boxes reach beyond the borders."""
    rng = np.random.default_rng(1)
    dicts = []
    for i, (h, w) in enumerate([(54, 96), (96, 54), (64, 64), (120, 33), (40, 71), (64, 96)]):
        image = cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
        path = tmp_path / "photos" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
        corners = rng.uniform(-5, [w - 5, h - 5], (4, 2))
        boxes = np.hstack([corners, rng.uniform(5, 30, (4, 2))]).tolist()
        annotations = [{"bbox": b, "bbox_mode": BoxMode.XYWH_ABS, "category_id": k} for k, b in enumerate(boxes)]
        dicts.append({"file_name": str(path), "image_id": i, "height": h, "width": w, "annotations": annotations})
    return dicts


def make_samples(dicts, cfg, num=30, **changes):
    options = {**TrainDatasetMapper.from_config(cfg, dicts, seed=5), **changes}
    mapper = TrainDatasetMapper(**options)
    return [mapper({**dicts[i % len(dicts)], "position": i}) for i in range(num)]


def test_mosaics_are_those_of_a_canvas(photos, make_cfg, monkeypatch):
    cfg = make_cfg(**PLAIN_COLORS)
    direct = make_samples(photos, cfg)
    monkeypatch.setattr(WarpTransform, "is_upright", False)
    canvas = make_samples(photos, cfg)
    num_boxes = 0
    for a, b in zip(direct, canvas, strict=True):
        torch.testing.assert_close(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor, rtol=0, atol=0)
        assert a["instances"].gt_classes.tolist() == b["instances"].gt_classes.tolist()
        num_boxes += len(a["instances"])
        off = (a["image"].int() - b["image"].int()).abs().amax(dim=0) > 1
        # The pixels may differ along seams only, which are lines of one or two pixels.
        rows, columns = off.float().mean(dim=1), off.float().mean(dim=0)
        assert off[rows < 0.1][:, columns < 0.1].float().mean() < 0.002
        assert (rows >= 0.1).sum() <= 8
        assert (columns >= 0.1).sum() <= 8
    assert num_boxes > 60


@pytest.mark.parametrize("seed", range(8))
def test_tiles_are_painted_side_by_side(seed):
    rng = np.random.default_rng(seed)
    size = h, w = 48, 64
    centre = int(rng.integers(w // 2, 3 * w // 2)), int(rng.integers(h // 2, 3 * h // 2))
    sizes = [(int(rng.integers(20, h + 1)), int(rng.integers(20, w + 1))) for _ in range(4)]
    tiles = [cv2.resize(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8), s[::-1]) for s in sizes]
    scale = rng.uniform(0.5, 1.5)
    x, y = rng.uniform(0.4, 0.6, 2) * [w, h] - scale * np.array([w, h])
    transform = WarpTransform(2 * h, 2 * w, h, w, np.array([[scale, 0, x], [0, scale, y], [0, 0, 1.0]]), scale)
    assert transform.is_upright
    image = np.full((h, w, 3), 114, np.uint8)
    count = np.zeros((h, w), int)
    for i, tile in enumerate(tiles):
        part, (px, py) = crop_to_canvas(tile, compute_tile_offset(i, sizes[i], centre), size)
        before = image.copy()
        transform.paint(part, (px, py), image)
        x0, y0, x1, y1 = transform.find_pixels(np.array([px, py, px + part.shape[1], py + part.shape[0]]))
        count[y0:y1, x0:x1] += 1
        outside = np.ones((h, w), bool)
        outside[y0:y1, x0:x1] = False
        np.testing.assert_array_equal(image[outside], before[outside])
    assert count.max() == 1


def test_images_that_do_not_land_are_not_read(photos, make_cfg, monkeypatch):
    reads = []
    read_image = TileReader.read_image

    def record(self, dataset_dict):
        reads.append(dataset_dict)
        return read_image(self, dataset_dict)

    monkeypatch.setattr(TileReader, "read_image", record)
    make_samples(photos, make_cfg(), num=60)
    # A mosaic reads four tiles, except those outside of it: about a tenth with tiles of these shapes.
    assert 0.75 * 240 < len(reads) < 0.97 * 240


@pytest.mark.parametrize("aug", [{}, {"MOSAIC_PROB": 0.0}, {"MIXUP_PROB": 1.0}, {"DEGREES": 10.0}])
def test_a_raw_cache_changes_nothing(photos, make_cfg, tmp_path, aug, assert_same_samples):
    expected = make_samples(photos, make_cfg(**aug))
    cache = ImageCache(tmp_path / "c", size=(64, 96), image_format="raw")
    for _ in range(2):
        assert_same_samples(make_samples(photos, make_cfg(**aug), cache=cache), expected)


def test_a_jpeg_cache_changes_pixels_a_little_and_repeatably(photos, make_cfg, tmp_path, assert_same_samples):
    cfg = make_cfg(**PLAIN_COLORS)
    cache = ImageCache(tmp_path / "c", size=(64, 96), image_format="jpeg")
    first, second = (make_samples(photos, cfg, cache=cache) for _ in range(2))
    assert_same_samples(first, second)
    for a, b in zip(first, make_samples(photos, cfg), strict=True):
        assert 0 < (a["image"].float() - b["image"].float()).abs().mean() < 4
        torch.testing.assert_close(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["disk", "ram"])
def test_the_config_chooses_the_cache(photos, make_cfg, tmp_path, kind, monkeypatch, caplog, assert_same_samples):
    expected = make_samples(photos, make_cfg(), num=10)
    monkeypatch.setattr("parking.data.cache.SharedMemoryFolder", lambda: type("Folder", (), {"path": tmp_path / "ram"}))
    cfg = make_cfg()
    cfg.INPUT.CACHE, cfg.INPUT.CACHE_DIR = kind, str(tmp_path / "disk")
    with caplog.at_level("INFO"):
        assert_same_samples(make_samples(photos, cfg, num=10), expected)
    assert f"({kind}, raw)" in caplog.text
    folder = tmp_path / ("disk/images" if kind == "disk" else "ram")
    assert len([p for p in (folder / "raw-64x96").rglob("*") if p.is_file()]) == 6


def break_photo(d):
    with open(d["file_name"], "rb+") as file:
        file.truncate(100)


@pytest.mark.parametrize("aug", [{}, {"MOSAIC_PROB": 0.0}, {"MIXUP_PROB": 1.0}, {"DEGREES": 10.0}])
def test_unreadable_images_stop_or_are_replaced_by_the_policy(photos, make_cfg, aug, assert_same_samples):
    whole = make_samples(photos, make_cfg(**aug))
    break_photo(photos[2])
    with pytest.raises(UnreadableImageError, match=r"2\.png.*cut off"):
        make_samples(photos, make_cfg(**aug))
    repaired = make_samples(photos, make_cfg(**aug), policy="repair")
    assert_same_samples(make_samples(photos, make_cfg(**aug), policy="repair"), repaired)
    names = [sample.get("unreadable", []) for sample in repaired]
    assert set(itertools.chain(*names)) == {photos[2]["file_name"]}
    # Samples without the broken image do not change.
    unchanged = [i for i in range(len(whole)) if not names[i]]
    assert 0 < len(unchanged) < len(whole)
    assert_same_samples([repaired[i] for i in unchanged], [whole[i] for i in unchanged])
    assert not any("unreadable" in sample for sample in whole)


def test_a_wrong_size_counts_as_unreadable(photos, make_cfg):
    photos[1]["height"] += 1
    with pytest.raises(UnreadableImageError, match="54 x 97"):
        make_samples(photos, make_cfg())
    samples = make_samples(photos, make_cfg(), policy="repair")
    assert {photos[1]["file_name"]} == set(itertools.chain(*(s.get("unreadable", []) for s in samples)))


def test_a_wrong_size_is_found_in_the_cache_too(photos, make_cfg, tmp_path):
    cache = ImageCache(tmp_path / "c", size=(64, 96), image_format="raw")
    make_samples(photos, make_cfg(), cache=cache)
    photos[2]["height"] = photos[2]["width"] = 128
    with pytest.raises(UnreadableImageError, match=r"64 x 64 .*128 x 128"):
        make_samples(photos, make_cfg(), cache=cache)


def test_nothing_readable_ends_with_an_error(photos, make_cfg):
    for d in photos:
        break_photo(d)
    with pytest.raises(UserError, match=r"100 .*\.png"):
        make_samples(photos, make_cfg(), policy="repair")
