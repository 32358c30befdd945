import numpy as np
import pytest
import torch

from parking.config import get_cfg
from parking.data.anchors import (
    BoxSizes,
    collect_box_sizes,
    find_fits,
    format_config,
    format_fit,
    measure_fit,
    propose_anchors,
)
from parking.modeling.dense_heads.anchor import RatioAssigner

COCO_ANCHORS = np.array(get_cfg().MODEL.ANCHOR_HEAD.ANCHORS, dtype=float)


@pytest.fixture(scope="module")
def tiny_sizes():
    """Return sizes of 2 to 12 pixels; the smallest anchor, 10 x 13, fits only those above 2.5 x 3.25."""
    return np.exp(np.random.default_rng(0).uniform(np.log(2), np.log(12), (400, 2)))


def image(height, width, *annotations):
    annotations = [{"bbox": box, "category_id": i, "iscrowd": crowd} for box, i, crowd in annotations]
    return {"height": height, "width": width, "annotations": annotations}


def propose(sizes, shape=(3, 3), *, num_generations=100, seed=0):
    return propose_anchors(sizes, shape, 4.0, num_generations=num_generations, seed=seed)


class TestCollecting:
    def test_boxes_are_scaled_to_just_fit(self):
        # 1080 x 1920 into 640 x 640: the width decides, 640 / 1920 = 1/3. Then 200 x 100 into 640 x 640: 3.2.
        dicts = [image(1080, 1920, ([5, 5, 90, 30], 1, 0)), image(200, 100, ([0, 0, 10, 20], 0, 0)), image(9, 9)]
        boxes = collect_box_sizes(dicts, (640, 640))
        np.testing.assert_allclose(boxes.sizes, [[30, 10], [32, 64]])
        assert boxes.classes.tolist() == [1, 0]
        assert (boxes.num_small, boxes.num_crowds) == (0, 0)

    def test_sides_are_scaled_as_their_pixels_are(self):
        # The height is the first number of the size; it decides here, with the factor 1.92.
        boxes = collect_box_sizes([image(100, 100, ([0, 0, 50, 25], 0, 0))], (192, 320))
        np.testing.assert_allclose(boxes.sizes, [[96, 48]])
        # Half of 3 columns is rounded to 2, so that a box of 3 columns becomes 2 wide.
        boxes = collect_box_sizes([image(100, 3, ([0, 0, 3, 10], 0, 0))], (50, 50))
        np.testing.assert_allclose(boxes.sizes, [[2, 5]])

    def test_small_boxes_and_crowds_are_left_out_and_counted(self):
        # At half size, 2 x 5 is kept, 1.95 x 5 and 5 x 1.5 are too small; small crowds count as crowds.
        kept = ([0, 0, 4, 10], 2, 0)
        small = [([0, 0, 3.9, 10], 0, 0), ([0, 0, 10, 3], 1, 0)]
        crowds = [([0, 0, 40, 40], 0, 1), ([0, 0, 1, 1], 0, 1), ([0, 0, 9, 9], 0, 1)]
        boxes = collect_box_sizes([image(100, 100, *small, kept, *crowds)], (50, 50))
        assert (boxes.sizes.tolist(), boxes.classes.tolist()) == ([[2.0, 5.0]], [2])
        assert (boxes.num_small, boxes.num_crowds) == (2, 3)

    def test_no_boxes(self):
        boxes = collect_box_sizes([image(10, 10), {"height": 5, "width": 5}], (50, 50))
        assert boxes.sizes.shape == (0, 2)
        assert np.isnan(measure_fit(boxes.sizes, COCO_ANCHORS, 4.0)).all()


class TestMeasuring:
    def test_by_hand(self):
        anchors = np.array([[[10, 10]], [[20, 40]]])
        sizes = np.array(
            # The ratios of the sides to the first anchor; to the second anchor: which of them fit.
            [
                [12, 20],  # 1.2 and 2; 20/12 = 1.67 and 2: both
                [39, 39],  # 3.9; 1.95 and 1.03: both
                [40, 10],  # 4 is not below 4; 2 and 4: none
                [3, 10],  # 10/3 = 3.33 and 1; 20/3 = 6.7: the first
                [70, 150],  # 7; 3.5 and 3.75: the second
            ]
        )
        assert find_fits(sizes, anchors, 4.0).tolist() == [
            [True, True],
            [True, True],
            [False, False],
            [True, False],
            [False, True],
        ]
        fit = measure_fit(sizes, anchors, 4.0)
        np.testing.assert_allclose(fit, (4 / 5, (2 + 2 + 0 + 1 + 1) / 5))
        assert measure_fit(np.array([[10, 25]]), np.array([[10, 10]]), 2.6) == (1, 1)

    @pytest.mark.parametrize("max_ratio", [1.5, 4.0])
    def test_agrees_with_the_assigner(self, max_ratio):
        rng = np.random.default_rng(1)
        # Powers of two times an anchor's sides have ratios of exactly 4.
        exact = COCO_ANCHORS.reshape(-1, 2)[rng.integers(0, 9, 100)] * 2.0 ** rng.integers(-2, 3, (100, 2))
        sizes = np.concatenate([np.exp(rng.uniform(np.log(2), np.log(600), (300, 2))), exact])
        # Boxes start at (0, 0), so that subtracting the corners gives the exact sizes.
        boxes = torch.cat([torch.zeros(len(sizes), 2), torch.tensor(sizes, dtype=torch.float32)], dim=1)
        levels = RatioAssigner(anchor_ratio=max_ratio)(
            boxes, torch.zeros(len(sizes), dtype=torch.int64), torch.tensor(COCO_ANCHORS), [8, 16, 32],
            [(100, 100), (50, 50), (25, 25)],
        )  # fmt: skip
        matched = np.zeros((len(sizes), 3, 3), dtype=bool)
        for i, level in enumerate(levels):
            matched[level.gt_index, i, level.anchor] = True
        fits = find_fits(sizes, COCO_ANCHORS, max_ratio)
        assert 0 < fits.sum() < fits.size
        np.testing.assert_array_equal(fits.reshape(-1, 3, 3), matched)

    def test_table(self):
        boxes = BoxSizes(np.array([[10, 10], [12, 9], [90, 90.0]]), np.array([2, 2, 0]), 0, 0)
        rows = [line.split() for line in format_fit(boxes, ["a", "b", "c"], np.array([[[10, 10]]]), 4.0).splitlines()]
        assert rows[2:] == [
            ["all", "3", "0.6667", "0.67"],
            ["a", "1", "0.0000", "0.00"],
            ["b", "0", "-", "-"],
            ["c", "2", "1.0000", "1.00"],
        ]


class TestProposing:
    def test_beats_the_configured_on_tiny_boxes(self, tiny_sizes):
        configured = measure_fit(tiny_sizes, COCO_ANCHORS, 4.0)
        proposed = measure_fit(tiny_sizes, propose(tiny_sizes), 4.0)
        assert configured.recall < 0.8
        assert proposed.recall == 1
        assert proposed.anchors_per_target > configured.anchors_per_target

    def test_the_same_seed_gives_the_same(self, tiny_sizes):
        np.testing.assert_array_equal(propose(tiny_sizes, seed=3), propose(tiny_sizes, seed=3))
        assert (propose(tiny_sizes, seed=3) != propose(tiny_sizes, seed=4)).any()

    def test_refinement_fits_better_than_clusters_alone(self, tiny_sizes):
        def mean_best_ratio(anchors):
            ratios = tiny_sizes[:, None] / anchors.reshape(-1, 2)
            return np.minimum(ratios, 1 / ratios).min(axis=2).max(axis=1).mean()

        clusters, refined = propose(tiny_sizes, num_generations=0), propose(tiny_sizes, num_generations=1000)
        assert mean_best_ratio(refined) > mean_best_ratio(clusters) + 0.001

    @pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 1), (1, 4)])
    def test_shape_and_order(self, tiny_sizes, shape):
        anchors = propose(tiny_sizes, shape, num_generations=20)
        assert anchors.shape == (*shape, 2)
        assert (np.diff(anchors.reshape(-1, 2).prod(axis=1)) >= 0).all()

    def test_as_many_sizes_as_anchors_are_found_themselves(self):
        sizes = np.repeat([[4.0, 8.0], [50.0, 20.0], [200.0, 300.0]], 5, axis=0)
        np.testing.assert_array_equal(propose(sizes, (3, 1), num_generations=0)[:, 0], sizes[::5])

    def test_fewer_sizes_than_anchors(self):
        anchors = propose(np.array([[7.0, 5.0]]), num_generations=10)
        assert anchors.shape == (3, 3, 2)
        assert measure_fit(np.array([[7.0, 5.0]]), anchors, 4.0).recall == 1


class TestConfig:
    def test_is_merged_with_its_base(self, tmp_path, tiny_sizes):
        (tmp_path / "한글: base.yaml").write_text("SEED: 7\n", encoding="utf-8")
        anchors = propose(tiny_sizes, (4, 3), num_generations=0)
        (tmp_path / "anchors.yaml").write_text(format_config(anchors, "한글: base.yaml"), encoding="utf-8")
        cfg = get_cfg()
        cfg.merge_from_file(tmp_path / "anchors.yaml")
        np.testing.assert_array_equal(cfg.MODEL.ANCHOR_HEAD.ANCHORS, anchors)
        assert cfg.MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS is False
        assert cfg.SEED == 7

    def test_without_a_base(self):
        assert format_config(np.array([[[2, 3.5]]])).startswith("MODEL:\n")
