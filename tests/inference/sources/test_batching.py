from hypothesis import given, settings
from hypothesis import strategies as st

from parking.inference.sources.batching import plan_batches


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


def test_images_of_unknown_size_stand_alone():
    images = [{"file_name": "a.png"}, {"file_name": "b.png"}, *make((300, 400))]
    assert plan(images) == [["a.png"], ["b.png"], ["0.png"]]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=30), st.integers(1, 5))
def test_each_image_is_in_one_batch(sizes, batch_size):
    images = make(*sizes)
    batches = plan(images, batch_size)
    assert sorted(name for batch in batches for name in batch) == sorted(image["file_name"] for image in images)
    assert all(1 <= len(batch) <= batch_size for batch in batches)
