"""Stand-ins for a trainer and a checkpointer."""

import math
from types import SimpleNamespace

from detectron2.utils.events import EventStorage

from parking.engine.clock import TrainingClock
from parking.engine.hooks.early_stopping import EarlyStoppingHook
from parking.engine.hooks.evaluation import EvalHook, Evaluations
from parking.engine.hooks.time_budget import TimeBudgetHook


class Recorder:
    """Stands in for a checkpointer."""

    def __init__(self, values=None):
        self.saved = []
        self.values = values or {}

    def read_values(self, name):
        assert name == "model_best"
        return self.values

    def save_resumable(self, name):
        self.saved.append(name)

    def save_release(self, name, state_dict, **values):
        self.saved.append((name, values))


def make_trainer(max_iter=10):
    return SimpleNamespace(iter=0, storage=EventStorage(), start_iter=0, max_iter=max_iter)


def make_loop(**attributes):
    """What hooks use of an ``AccumulatingTrainer``, here one that steps in every iteration."""
    values = {"has_stepped": True, "is_amid_step": False, "skip_unless_finite": lambda: None}
    return SimpleNamespace(iter=0, **{**values, "flush_metrics": lambda: None, **attributes})


class Run:
    """Stands in for a trainer: ``scores`` are those after iterations 10, 20, ..."""

    def __init__(self, *, max_iter, scores=(), seconds_per_iter=0.0, eval_seconds=0.0):
        self.hooks, self.max_iter, self.scores = [], max_iter, list(scores)
        self.seconds_per_iter = seconds_per_iter
        self.start_iter, self.evaluations = 0, Evaluations(seconds=eval_seconds)
        self.now = 1000.0
        self.ends = []

    def add_early_stopping(self, patience):
        stopping = EarlyStoppingHook("bbox/AP75", patience, self.end_at)
        self.hooks += [stopping, EvalHook(10, self.evaluate, self.evaluations, [stopping.after_evaluation])]
        for hook in self.hooks:
            hook.trainer = self
        return self

    def add_budget(self, max_seconds, *, eval_period=0, record=None):
        clock = TrainingClock(record, clock=lambda: self.now)
        shared = {"clock": clock, "evaluations": self.evaluations, "end_at": self.end_at}
        self.hooks.append(TimeBudgetHook(max_seconds, max_iter=self.max_iter, eval_period=eval_period, **shared))
        self.hooks[-1].trainer, self.clock = self, clock
        return self

    def end_at(self, max_iter, next_iteration):
        assert next_iteration in (self.iter, self.iter + 1)
        self.max_iter = max_iter
        self.ends.append(max_iter)

    def evaluate(self, next_iteration):
        self.evaluations.before = next_iteration
        score = self.scores[next_iteration // 10 - 1]
        return {"bbox": {"AP75": score}} if math.isfinite(score) else {}  # as the trainer's evaluations do

    def run(self, stop_at=None):
        with EventStorage(self.start_iter) as self.storage:
            self.iter = self.start_iter
            for hook in self.hooks:
                hook.before_train()
            while self.iter < min(self.max_iter, stop_at or self.max_iter):
                per_iter = self.seconds_per_iter
                self.now += per_iter(self.iter) if callable(per_iter) else per_iter
                for hook in self.hooks:
                    hook.after_step()
                self.iter += 1
                self.storage.step()
        return self.iter


def stop_early(patience, scores, max_iter=100):
    return Run(max_iter=max_iter, scores=scores).add_early_stopping(patience)
