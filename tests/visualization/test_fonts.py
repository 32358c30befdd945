import numpy as np
import pytest

from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.data_charts import encode_png, plot_boxes_per_image, plot_class_counts, plot_conditions
from parking.visualization.drawing import BoxDrawer
from parking.visualization.fonts import drawable
from parking.visualization.frame_painter import FramePainter

HOSTILE = ["\x1b[2J", "a\nb\r", "gpj.\u202etxt", "x" * 10**6, "$\\frac{$", "$", "\udcff", "\0", "", "세단"]


def test_names_become_texts_of_one_short_line():
    for name in HOSTILE:
        assert drawable(name).isprintable() and len(drawable(name)) <= 125
    assert drawable("한") == "한"
    assert drawable("sedan (Korean: 세단)") == "sedan (Korean: 세단)"


@pytest.mark.filterwarnings("ignore:Glyph", "ignore:constrained_layout")
def test_names_of_any_kind_can_be_drawn():
    image, boxes = np.zeros((90, 120, 3), np.uint8), np.tile([[10.0, 10, 60, 60]], (len(HOSTILE), 1))
    indices = np.arange(len(HOSTILE))
    assert BoxDrawer(HOSTILE).draw(image, boxes, indices).any()
    assert FramePainter(HOSTILE).draw(image, boxes, indices, np.ones(len(HOSTILE))).any()
    assert contact_sheet([image] * len(HOSTILE), HOSTILE).shape[2] == 3
    counts = {name: [1] * len(HOSTILE) for name in HOSTILE[:4]}
    encode_png(plot_class_counts(HOSTILE, counts))
    encode_png(plot_boxes_per_image(counts))
    encode_png(plot_conditions({"weather": {"$side$": dict.fromkeys(HOSTILE, 1)}}))
