import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.inference.sources.batching import plan_batches
from parking.visualization.drawing import save_image


def make(*sizes):
    return [{"file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)]


def plan(images, batch_size=2, size=128):
    batches = plan_batches(images, size=size, size_divisibility=32, batch_size=batch_size)
    return [[image["file_name"] for image in batch] for batch in batches]


def test_only_equal_padded_shapes_share_a_batch():
    # At 128 they become 96 x 128, 128 x 96, 92 x 128 (padded to 96) and 100 x 128 (padded to 128).
    images = make((300, 400), (400, 300), (288, 400), (312, 400), (75, 100), (30, 40), (400, 300))
    assert plan(images) == [["0.png", "2.png"], ["1.png", "6.png"], ["3.png"], ["4.png", "5.png"]]
    assert plan(images, batch_size=1) == [[f"{i}.png"] for i in range(7)]
    assert plan(images, batch_size=99) == [["0.png", "2.png", "4.png", "5.png"], ["1.png", "6.png"], ["3.png"]]
    assert plan([]) == []


def test_sizes_are_read_where_they_are_not_stated(tmp_path):
    for name, shape in [("a.png", (30, 40, 3)), ("b.jpg", (40, 30, 3))]:
        save_image(np.zeros(shape, np.uint8), tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no image")
    names = [str(tmp_path / name) for name in ("a.png", "b.jpg", "c.png", "missing.png", "a.png")]
    images = [{"file_name": name} for name in names] + make((300, 400))
    a, b, c, missing, _ = names
    # What cannot be read stands alone.
    assert plan(images, batch_size=3) == [[a, a, "0.png"], [b], [c], [missing]]
    assert images[0].keys() == {"file_name"}, "the dicts stay as they are"


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=30), st.integers(1, 5))
def test_each_image_is_in_one_batch(sizes, batch_size):
    images = make(*sizes)
    batches = plan(images, batch_size)
    assert sorted(name for batch in batches for name in batch) == sorted(image["file_name"] for image in images)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
