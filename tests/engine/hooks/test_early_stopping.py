import math

import pytest

from .stand_ins import stop_early


def test_early_stopping_after_patience_evaluations_without_a_better_score():
    # The best score is that after 20 iterations; those after 30 and 40 are no better. One more iteration follows.
    assert stop_early(2, [5, 7, 6, 7, 9, 9, 9, 9, 9, 9]).run() == 41
    assert stop_early(3, [5, 7, 6, 7, 9, 9, 9, 8, 10, 9]).run() == 81
    assert stop_early(9, [5] * 10).run() == 100


@pytest.mark.parametrize(
    ("scores", "end"),
    [
        ([math.nan] * 10, 100),
        ([5, math.nan, math.nan, math.nan, math.nan, 6, 5, math.nan, 5, 5], 91),
        ([5, 4, math.nan, 4, 9, 9, 9, 9, 9, 9], 41),
    ],
)
def test_a_score_that_cannot_be_computed_is_not_worse(scores, end):
    assert stop_early(2, scores).run() == end


def test_early_stopping_counts_on_after_a_resume():
    first = stop_early(2, [5, 7, 6, 7])
    first.run(stop_at=35)
    second = stop_early(2, [5, 7, 6, 7])
    second.hooks[0].load_state_dict(first.hooks[0].state_dict())
    second.start_iter, second.evaluations.before = 35, 30
    assert second.run() == 41
