"""What takes the place of a trainer and of a checkpointer in these tests."""

from types import SimpleNamespace

from detectron2.utils.events import EventStorage


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
    """Of an ``AccumulatingTrainer`` that steps in every iteration, what hooks use."""
    values = {"has_stepped": True, "is_amid_step": False, "skip_unless_finite": lambda: None}
    return SimpleNamespace(iter=0, **{**values, "flush_metrics": lambda: None, **attributes})
