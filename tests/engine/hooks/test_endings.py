import math
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from parking.engine.hooks import EarlyStoppingHook, TimeBudgetHook


class Run:
    """Stands in for a trainer: ``evaluations`` are the scores after iterations 10, 20, ..."""

    def __init__(self, hook, max_iter, evaluations=(), seconds_per_iter=0.0, eval_seconds=0.0):
        self.hook, self.max_iter, self.evaluations = hook, max_iter, list(evaluations)
        self.seconds_per_iter = seconds_per_iter
        self.start_iter, self.evaluated_before, self.eval_seconds = 0, -1, eval_seconds
        self.total_eval_seconds = 0.0
        self.cfg = SimpleNamespace(SOLVER=SimpleNamespace(MAX_ITER=max_iter))
        self.now = 1000.0
        self.ends = []
        hook.trainer = self

    def end_at(self, max_iter, next_iteration):
        assert next_iteration in (self.iter, self.iter + 1)
        self.max_iter = max_iter
        self.ends.append(max_iter)

    def run(self, stop_at=None):
        with EventStorage(self.start_iter) as self.storage:
            self.iter = self.start_iter
            self.hook.before_train()
            while self.iter < min(self.max_iter, stop_at or self.max_iter):
                per_iter = self.seconds_per_iter
                self.now += per_iter(self.iter) if callable(per_iter) else per_iter
                if (self.iter + 1) % 10 == 0 and len(self.evaluations) >= (self.iter + 1) // 10:
                    self.evaluated_before = self.iter + 1
                    score = self.evaluations[self.iter // 10]
                    if math.isfinite(score):  # as the trainer's evaluations do
                        self.storage.put_scalar("bbox/AP75", score)
                self.hook.after_step()
                self.iter += 1
                self.storage.step()
        return self.iter


def test_early_stopping_after_patience_evaluations_without_a_better_score():
    # Best after 20; 30 and 40 are no better, so that one iteration follows iteration 39.
    assert Run(EarlyStoppingHook("bbox/AP75", 2), 100, [5, 7, 6, 7, 9, 9, 9, 9, 9, 9]).run() == 41
    assert Run(EarlyStoppingHook("bbox/AP75", 3), 100, [5, 7, 6, 7, 9, 9, 9, 8, 10, 9]).run() == 81
    assert Run(EarlyStoppingHook("bbox/AP75", 9), 100, [5] * 10).run() == 100


@pytest.mark.parametrize(
    ("evaluations", "end"),
    [
        ([math.nan] * 10, 100),
        ([5, math.nan, math.nan, math.nan, math.nan, 6, 5, math.nan, 5, 5], 91),
        ([5, 4, math.nan, 4, 9, 9, 9, 9, 9, 9], 41),
    ],
)
def test_a_score_that_cannot_be_computed_is_not_worse(evaluations, end):
    assert Run(EarlyStoppingHook("bbox/AP75", 2), 100, evaluations).run() == end


def test_early_stopping_counts_on_after_a_resume():
    first = Run(EarlyStoppingHook("bbox/AP75", 2), 100, [5, 7, 6, 7])
    first.run(stop_at=35)
    hook = EarlyStoppingHook("bbox/AP75", 2)
    hook.load_state_dict(first.hook.state_dict())
    second = Run(hook, 100, [5, 7, 6, 7])
    second.start_iter, second.evaluated_before = 35, 30
    assert second.run() == 41


def make_budget(max_seconds, *, eval_period=0, record=None, **kwargs):
    clock = SimpleNamespace()
    hook = TimeBudgetHook(max_seconds, eval_period, record=record, clock=lambda: clock.run.now)
    clock.run = Run(hook, **kwargs)
    return clock.run


def test_with_time_to_spare_nothing_changes():
    run = make_budget(1000.0, max_iter=1000, seconds_per_iter=0.97)
    assert run.run() == 1000
    assert run.ends == []


def test_a_run_that_is_too_slow_ends_in_time():
    # 1 s an iteration: 980 of 2000 fit into 1000 s, of which 2 % are kept.
    run = make_budget(1000.0, max_iter=2000, seconds_per_iter=1.0)
    assert run.run() == 980
    assert run.ends == [980] and run.hook.seconds <= 1000


def test_time_for_evaluations_is_kept():
    # 980 s less one evaluation of 100 s at the end: 880 of 1 s each, or with another every 100 iterations 440 of 2 s.
    assert make_budget(1000.0, max_iter=2000, seconds_per_iter=1.0, eval_seconds=100.0).run() == 880
    run = make_budget(1000.0, eval_period=100, max_iter=2000, seconds_per_iter=1.0, eval_seconds=100.0)
    run.run()
    # At iteration 220, of which no evaluation has taken time in this stand-in: 220 + (980 - 220 - 100) / 2 = 550.
    assert run.ends[0] == 550


def test_a_slow_beginning_is_not_held_against_the_rest():
    run = make_budget(1200.0, max_iter=1000, seconds_per_iter=lambda iteration: 5.0 if iteration < 60 else 0.9)
    # 300 s for the first 60 and 846 for the others.
    assert run.run() == 1000


def test_the_time_of_earlier_runs_counts():
    run = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0)
    run.run(stop_at=300)
    hook = run.hook
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0)
    again.hook.load_state_dict(hook.state_dict())
    again.start_iter = 300
    assert again.run() == pytest.approx(980, abs=1)


def test_the_time_between_a_checkpoint_and_a_kill_counts(tmp_path):
    run = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    run.run(stop_at=200)
    at_checkpoint = run.hook.state_dict()
    run.start_iter = 200
    run.run(stop_at=300)  # and is killed: what it wrote last is of iteration 300, or of the minute before
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    again.hook.load_state_dict(at_checkpoint)
    again.start_iter = 200
    # 240 to 300 of the 1000 seconds are gone with 200 iterations done.
    assert 880 <= again.run() <= 940


def test_a_run_without_a_budget_counts_for_one_with(tmp_path):
    run = make_budget(None, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    run.run(stop_at=500)
    assert run.ends == []
    run.hook.after_train()
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    again.start_iter = 500
    assert again.run() == pytest.approx(980, abs=1)


def test_a_budget_does_not_undo_early_stopping():
    early, budget = EarlyStoppingHook("bbox/AP75", 2), make_budget(1e6, max_iter=2000).hook
    run = Run(early, 2000, [5.0] * 200, seconds_per_iter=1.0)
    budget.trainer = run
    budget._clock = lambda: run.now
    both = SimpleNamespace(
        before_train=lambda: (early.before_train(), budget.before_train()),
        after_step=lambda: (early.after_step(), budget.after_step()),
    )
    run.evaluations = [float(i) for i in range(25)] + [0.0] * 100
    run.hook = both
    # Best after 250; 260 and 270 are worse, and one iteration follows.
    assert run.run() == 271


def test_an_evaluation_before_the_training_counts(tmp_path):
    run = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    (tmp_path / "seconds_used").write_text("300\n")
    run.hook.write_record()
    run.now += 100
    assert run.hook.seconds == 400
    run.hook.before_train()
    assert run.hook.seconds == 400
    run.hook.after_train()
    assert (tmp_path / "seconds_used").read_text() == "400\n"


def test_a_record_that_cannot_be_written_does_not_end_the_training(tmp_path, caplog):
    (tmp_path / "file").touch()
    run = make_budget(None, max_iter=200, seconds_per_iter=1.0, record=tmp_path / "file" / "seconds_used")
    assert run.run() == 200
    assert "could not be written" in caplog.text
