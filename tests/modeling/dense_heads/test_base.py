import pytest
import torch

from parking.modeling import ClassRows, DensePredictions
from parking.modeling.dense_heads import iter_raw
from parking.modeling.dense_heads.base import join_predictions


def make(num_images=2, level_sizes=(3, 2, 1), bound=True):
    size = sum(level_sizes)
    boxes = torch.arange(num_images * size * 4.0).view(num_images, size, 4)
    scores = torch.arange(num_images * size * 5.0).view(num_images, size, 5)
    return DensePredictions(boxes, scores, level_sizes, scores.amax(dim=2) if bound else None)


@pytest.mark.parametrize(
    ("levels", "sizes", "rows"),
    [
        ((0, -1), (3, 2), [0, 1, 2, 3, 4]),
        ((1,), (2, 1), [3, 4, 5]),
        ((1, 2), (2,), [3, 4]),
        ((0,), (3, 2, 1), range(6)),
    ],
)
def test_some_levels(levels, sizes, rows):
    predictions, rows = make(), list(rows)
    part = predictions.of_levels(*levels)
    assert part.level_sizes == sizes
    for name in ("boxes", "scores", "upper_bound"):
        assert torch.equal(getattr(part, name), getattr(predictions, name)[:, rows])
    assert make(bound=False).of_levels(*levels).upper_bound is None


def test_levels_taken_apart_and_joined():
    predictions = make()
    joined = join_predictions([predictions.of_levels(0, 1), predictions.of_levels(1)])
    assert joined.level_sizes == predictions.level_sizes
    assert all(torch.equal(*pair) for pair in zip(joined[:2], predictions[:2], strict=True))
    assert torch.equal(joined.upper_bound, predictions.upper_bound)
    # A bound of some predictions only is none.
    assert join_predictions([predictions, make(bound=False)]).upper_bound is None


@pytest.mark.parametrize(
    ("groups", "before", "shape", "expected"),
    [
        (3, 5, (255, 8, 1, 1), 80),
        (3, 5, (255,), 80),
        (1, 0, (14,), 14),
        (2, 5, (27,), None),
        (2, 5, (10,), None),
        (2, 5, (), None),
    ],
)
def test_classes_by_the_number_of_rows(groups, before, shape, expected):
    assert ClassRows(groups, before, 0.0).count_classes(torch.zeros(shape)) == expected


def test_raw_outputs_of_any_nesting():
    tensors = [torch.zeros(i) for i in range(5)]
    raw = [tensors[0], (tensors[1], [tensors[2], tensors[3]]), tensors[4]]
    assert [t.numel() for t in iter_raw(raw)] == [0, 1, 2, 3, 4]
    assert list(iter_raw(tensors[1])) == [tensors[1]]
