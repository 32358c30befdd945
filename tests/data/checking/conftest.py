"""Small data sets in the challenge's layout."""

import json

import numpy as np
import pytest
from PIL import Image

SIZE = (64, 48)


class DatasetMaker:
    """Makes a data set of different 64 x 48 pictures below ``root``."""

    def __init__(self, root):
        self.root = root
        self.train = root / "train" / "images"
        self.test = root / "test" / "images"
        self.json_file = root / "train" / "label" / "Train.json"
        self.images, self.annotations = [], []
        for folder in (self.train, self.test, self.json_file.parent):
            folder.mkdir(parents=True)
        self._rng = np.random.default_rng(0)

    def picture(self) -> Image.Image:
        # Noise makes a file long enough to be cut off within its pixels.
        return Image.fromarray(self._rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8))

    def add(self, name, *, image_id=None, box=(5, 6, 20, 15), save=True, **extra) -> int:
        """List an image, with its size and, unless ``box`` is None, one box; and save a picture for it."""
        image_id = len(self.images) + 1 if image_id is None else image_id
        self.images.append({"id": image_id, "file_name": name, "width": SIZE[0], "height": SIZE[1], **extra})
        if save:
            self.picture().save(self.train / name)
        if box is not None:
            self.annotate(image_id, box)
        return image_id

    def annotate(self, image_id, box, category_id=1, **extra) -> None:
        entry = {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": category_id, "bbox": box}
        self.annotations.append({**entry, **extra})

    def write(self):
        content = {"images": self.images, "annotations": self.annotations}
        self.json_file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        names = sorted(path.name for path in self.test.iterdir())
        images = [{"id": k, "file_name": name} for k, name in enumerate(names, start=1)]
        (self.root / "Test_Images_Information.json").write_text(json.dumps({"images": images}), encoding="utf-8")
        return self.root


@pytest.fixture
def maker(tmp_path):
    return DatasetMaker(tmp_path / "data")


@pytest.fixture
def clean_root(maker):
    """Return the root of flawless data: six images of three sequences, and a test image."""
    for sequence in (1, 2, 3):
        for frame in (10, 11):
            maker.add(f"20201102_경기도_-_-_맑음_주간_실외_right_{sequence:06d}_{frame:07d}.png")
    for category_id in range(2, 15):
        maker.annotate(1, (5, 6, 20, 15), category_id)
    maker.picture().save(maker.test / "0a3f.png")
    return maker.write()
