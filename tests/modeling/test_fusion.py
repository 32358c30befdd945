import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from parking.modeling import soft_nms, weighted_boxes_fusion


def squares(*lefts):
    """10 x 10 boxes; two that are d apart have IoU (10 - d) / (10 + d)."""
    return torch.tensor([[left, 0.0, left + 10, 10] for left in lefts])


def run_soft_nms(boxes, scores, groups=None, **overrides):
    groups = torch.tensor(groups or [0] * len(boxes), dtype=torch.int64)
    arguments = {"sigma": 0.5, "score_thresh": 0.0, "max_per_group": 100}
    return soft_nms(boxes, torch.tensor(scores), groups, **(arguments | overrides))


def run_wbf(boxes, scores, groups=None, *, num_sources=2, iou_thresh=0.6):
    groups = torch.tensor(groups or [0] * len(boxes), dtype=torch.int64)
    return weighted_boxes_fusion(boxes, torch.tensor(scores), groups, num_sources=num_sources, iou_thresh=iou_thresh)


class TestSoftNMS:
    def test_by_hand(self):
        # 2 apart: IoU 8 / 12. The second sinks to 0.8 * exp(-(2/3)^2 / 0.5) = 0.8 * 0.411112 = 0.328890.
        indices, scores = run_soft_nms(squares(0, 2, 100), [0.9, 0.8, 0.7])
        assert indices.tolist() == [0, 2, 1]
        assert_close(scores, torch.tensor([0.9, 0.7, 0.328890]))

    def test_what_is_picked_lowers_the_rest_again(self):
        # 2, 4 and 2 apart: IoU 2/3, 6/14, 2/3. The last sinks by the first, exp(-0.367347), then by the second,
        # exp(-0.888889): 0.7 * 0.692569 = 0.484798, which is more than the second's 0.328890 and picked before it.
        indices, scores = run_soft_nms(squares(0, 2, 4), [0.9, 0.8, 0.7])
        assert indices.tolist() == [0, 2, 1]
        # 0.328890 * 0.411112
        assert_close(scores, torch.tensor([0.9, 0.484798, 0.135211]))

    def test_a_small_sigma_leaves_only_what_touches_nothing(self):
        indices, scores = run_soft_nms(squares(0, 2, 10), [0.9, 0.8, 0.7], sigma=1e-4)
        assert indices.tolist() == [0, 2]
        assert_close(scores, torch.tensor([0.9, 0.7]))

    def test_the_threshold_is_for_the_lowered_score(self):
        assert run_soft_nms(squares(0, 2, 100), [0.9, 0.8, 0.7], score_thresh=0.33)[0].tolist() == [0, 2]
        assert run_soft_nms(squares(0, 100), [0.5, 0.25], score_thresh=0.25)[0].tolist() == [0]

    def test_at_most_so_many_of_each_group(self):
        boxes = squares(0, 100, 200, 300, 400)
        indices, _ = run_soft_nms(boxes, [0.5, 0.9, 0.8, 0.6, 0.7], [7, 7, 7, -3, -3], max_per_group=2)
        assert sorted(indices.tolist()) == [1, 2, 3, 4]

    def test_equal_scores_keep_their_order(self):
        indices, scores = run_soft_nms(squares(100, 0, 0), [0.5, 0.5, 0.5])
        assert indices.tolist() == [0, 1, 2]
        # The same box: exp(-1 / 0.5).
        assert_close(scores, torch.tensor([0.5, 0.5, 0.5 * 0.135335]))

    def test_arguments_are_not_changed(self):
        boxes, scores = squares(0, 2), torch.tensor([0.5, 0.9])
        soft_nms(boxes, scores, torch.zeros(2, dtype=torch.int64), sigma=0.5, score_thresh=0, max_per_group=9)
        assert_close(scores, torch.tensor([0.5, 0.9]), rtol=0, atol=0)
        assert_close(boxes, squares(0, 2), rtol=0, atol=0)

    def test_nothing(self):
        indices, scores = run_soft_nms(torch.zeros(0, 4), [])
        assert indices.shape == scores.shape == (0,)
        assert indices.dtype == torch.int64


class TestWeightedBoxesFusion:
    def test_by_hand(self):
        boxes, scores, groups = run_wbf(squares(0, 2, 100), [0.8, 0.4, 0.5], [4, 4, 4])
        # (0 * 0.8 + 2 * 0.4) / 1.2 = 2/3; (0.8 + 0.4) / 2, both sources. The other is one source's: 0.5 / 2.
        assert_close(boxes, squares(2 / 3, 100))
        assert_close(scores, torch.tensor([0.6, 0.25]))
        assert groups.tolist() == [4, 4]

    def test_more_members_than_sources(self):
        # The first two average to 2/3 as above, 4/3 from the third: IoU (26/3) / (34/3) = 0.76.
        # (0 * 0.8 + 2 * 0.4 + 2 * 0.3) / 1.5 = 14/15; 1.5 / 3, not more.
        boxes, scores, _ = run_wbf(squares(0, 2, 2), [0.8, 0.4, 0.3])
        assert_close(boxes, squares(14 / 15))
        assert_close(scores, torch.tensor([0.5]))

    def test_what_counts_is_the_fused_box_as_it_is_by_then(self):
        # The last is 2 from the second (IoU 0.67), but 10/3 from the fused box at 2/3 (IoU (20/3) / (40/3) = 0.5).
        boxes, scores, _ = run_wbf(squares(0, 2, 4), [0.8, 0.4, 0.2])
        assert_close(boxes, squares(2 / 3, 4))
        assert_close(scores, torch.tensor([0.6, 0.1]))
        # It is 3.5 from the first (IoU 6.5 / 13.5 = 0.48), but 17/6 from the fused box (IoU (43/6) / (77/6) = 0.56).
        assert len(run_wbf(squares(0, 2, 3.5), [0.8, 0.4, 0.2], iou_thresh=0.5)[0]) == 1

    def test_the_nearest_cluster_is_joined(self):
        # 6 apart, IoU 4 / 16: two clusters. The third is 4 and 2 from them: IoU 6 / 14 = 0.43 and 8 / 12 = 0.67.
        boxes, scores, _ = run_wbf(squares(0, 6, 4), [0.9, 0.6, 0.2], iou_thresh=0.4)
        assert_close(boxes, squares(0, 5.5))  # (6 * 0.6 + 4 * 0.2) / 0.8
        assert_close(scores, torch.tensor([0.45, 0.4]))

    def test_of_equally_near_clusters_the_first_is_joined(self):
        # 4 from both: IoU 6 / 14.
        boxes, _, _ = run_wbf(squares(8, 0, 4), [0.9, 0.8, 0.1], iou_thresh=0.4)
        assert_close(boxes, squares(7.6, 0))  # (8 * 0.9 + 4 * 0.1) / 1.0

    def test_of_equal_scores_the_first_goes_first(self):
        # Chains 2 apart from the left and from the right; at 0.65 two of IoU 0.67 join, then the third is 3 away.
        first, _, _ = run_wbf(squares(0, 2, 4), [0.5, 0.5, 0.5], iou_thresh=0.65)
        assert_close(first, squares(1, 4))
        first, _, _ = run_wbf(squares(4, 2, 0), [0.5, 0.5, 0.5], iou_thresh=0.65)
        assert_close(first, squares(3, 0))

    def test_equal_boxes_stay_exactly_themselves(self):
        box = torch.tensor([[0.1, 1 / 3, 1234.567, 987.654]])
        boxes, _, _ = run_wbf(box.repeat(5, 1), [0.9, 0.7, 0.3, 0.11, 0.001], num_sources=5)
        assert_close(boxes, box, rtol=0, atol=0)

    @pytest.mark.parametrize("iou_thresh", [0.0, 1.0])
    def test_the_ends_of_the_threshold(self, iou_thresh):
        # 8 apart: IoU 2 / 18, enough for 0; nothing is above 1.
        boxes, _, _ = run_wbf(squares(0, 8, 50), [0.5, 0.5, 0.4], iou_thresh=iou_thresh)
        assert_close(boxes, squares(4, 50) if iou_thresh == 0 else squares(0, 8, 50))

    def test_nothing(self):
        boxes, scores, groups = run_wbf(torch.zeros(0, 4), [])
        assert (boxes.shape, scores.shape, groups.shape) == ((0, 4), (0,), (0,))


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    intersection = max(width, 0) * max(height, 0)
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)


def are_close_calls(values):
    """Whether another rounding could change which is the largest of the values."""
    values = sorted(values)
    return len(values) > 1 and values[-1] - values[-2] < 1e-5


def soft_nms_loop(boxes, scores, sigma):
    scores, rest, picks = list(scores), list(range(len(boxes))), []
    while rest:
        assume(not are_close_calls([scores[i] for i in rest]))
        best = max(rest, key=lambda i: scores[i])
        rest.remove(best)
        picks.append((best, scores[best]))
        for i in rest:
            scores[i] *= math.exp(-(iou(boxes[i], boxes[best]) ** 2) / sigma)
    return picks


def wbf_loop(boxes, scores, num_sources, iou_thresh):
    clusters = []

    def fuse(cluster):
        total = sum(scores[i] for i in cluster)
        return [sum(scores[i] * boxes[i][side] for i in cluster) / total for side in range(4)]

    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        overlaps = [iou(boxes[i], fuse(cluster)) for cluster in clusters]
        assume(not are_close_calls([overlap for overlap in overlaps if overlap > iou_thresh - 1e-5]))
        assume(all(abs(overlap - iou_thresh) > 1e-5 for overlap in overlaps))
        if overlaps and max(overlaps) > iou_thresh:
            clusters[overlaps.index(max(overlaps))].append(i)
        else:
            clusters.append([i])
    return [(fuse(c), sum(scores[i] for i in c) / len(c) * min(len(c), num_sources) / num_sources) for c in clusters]


@st.composite
def grouped_boxes(draw):
    """Boxes, different scores, and three groups."""
    rows = draw(st.lists(st.tuples(*[st.integers(0, 8)] * 2, *[st.integers(3, 12)] * 2), min_size=1, max_size=24))
    boxes = [[x, y, x + width, y + height] for x, y, width, height in rows]
    # Whose ratios are no simple numbers: of what is equal by chance, float32 could make either the larger.
    scores = [math.sqrt(rank + 0.37) / 6 for rank in draw(st.permutations(range(len(boxes))))]
    groups = draw(st.lists(st.sampled_from([5, -2, 2**40]), min_size=len(boxes), max_size=len(boxes)))
    return boxes, scores, groups


@settings(deadline=None, max_examples=60)
@given(grouped_boxes(), st.sampled_from([0.1, 0.5, 2.0]))
def test_soft_nms_equals_a_plain_loop(data, sigma):
    boxes, scores, groups = data
    indices, new_scores = run_soft_nms(torch.tensor(boxes, dtype=torch.float32), scores, groups, sigma=sigma)
    for group in set(groups):
        members = [i for i in range(len(boxes)) if groups[i] == group]
        expected = soft_nms_loop([boxes[i] for i in members], [scores[i] for i in members], sigma)
        found = [(i, score) for i, score in zip(indices.tolist(), new_scores.tolist(), strict=True) if i in members]
        assert [i for i, _ in found] == [members[i] for i, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-4)


@settings(deadline=None, max_examples=60)
@given(grouped_boxes(), st.sampled_from([0.313, 0.547]), st.integers(1, 4))
def test_weighted_boxes_fusion_equals_a_plain_loop(data, iou_thresh, num_sources):
    boxes, scores, groups = data
    fused = run_wbf(
        torch.tensor(boxes, dtype=torch.float32), scores, groups, num_sources=num_sources, iou_thresh=iou_thresh
    )
    for group in set(groups):
        members = [i for i in range(len(boxes)) if groups[i] == group]
        expected = wbf_loop([boxes[i] for i in members], [scores[i] for i in members], num_sources, iou_thresh)
        of_group = fused[2] == group
        assert_close(fused[0][of_group], torch.tensor([box for box, _ in expected]), rtol=1e-5, atol=1e-5)
        assert_close(fused[1][of_group], torch.tensor([score for _, score in expected]), rtol=1e-5, atol=1e-6)
    assert set(fused[2].tolist()) == set(groups)


def test_a_group_has_the_same_result_alone():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(400, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 10 + torch.rand(400, 2, generator=generator) * 20], dim=1)
    scores = torch.rand(400, generator=generator)
    groups = torch.randint(0, 20, (400,), generator=generator).clamp(min=8)  # one is much larger than the others
    soft = {"sigma": 0.5, "score_thresh": 0.05, "max_per_group": 50}
    mean = {"num_sources": 3, "iou_thresh": 0.5}
    indices, soft_scores = soft_nms(boxes, scores, groups, **soft)
    fused = weighted_boxes_fusion(boxes, scores, groups, **mean)
    for group in range(8, 20):
        (of_group,) = (groups == group).nonzero(as_tuple=True)
        one = boxes[of_group], scores[of_group], groups[of_group]
        alone, alone_scores = soft_nms(*one, **soft)
        here = groups[indices] == group
        assert indices[here].tolist() == of_group[alone].tolist()
        assert_close(soft_scores[here], alone_scores)
        for column, expected in zip(fused, weighted_boxes_fusion(*one, **mean), strict=True):
            assert_close(column[fused[2] == group], expected)
