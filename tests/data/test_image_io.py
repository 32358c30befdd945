import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from parking.data.image_io import UnreadableImageError, read_image, read_image_size

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_pixels_are_rgb_whatever_the_path(tmp_path):
    path = tmp_path / "주차장 가.나" / "사진.PNG"
    path.parent.mkdir()
    Image.fromarray(PIXELS).save(path)
    image = read_image(str(path))
    np.testing.assert_array_equal(image, PIXELS)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert read_image_size(path) == (4, 5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "I;16"])
def test_other_pixel_formats_become_rgb(tmp_path, mode):
    gray = np.full((4, 5), 200, dtype=np.uint8)
    if mode == "I;16":
        cv2.imwrite(str(tmp_path / "a.png"), gray.astype(np.uint16) * 257)
    else:
        Image.fromarray(gray).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.full((4, 5, 3), 200))


def test_exif_orientation_is_ignored_by_both_readers(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 5, 3)
    assert read_image_size(tmp_path / "a.jpg") == (4, 5)


@pytest.mark.parametrize("read", [read_image, read_image_size])
def test_unreadable_files_are_named(tmp_path, read):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    for name in ("empty.png", "text.png", "missing.png"):
        with pytest.raises(UnreadableImageError, match=name):
            read(str(tmp_path / name))


def test_what_only_lists_or_reads_images_needs_no_torch():
    modules = "parking.data.image_io, parking.data.datasets.images, parking.data.datasets.splits"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'detectron2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
