import os
import signal
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from parking.engine.hooks import (
    BestCheckpointHook,
    CheckpointHook,
    EMAHook,
    EvalHook,
    InterruptHook,
    UnreadableImagesHook,
    WarmupHook,
)
from parking.solver import ModelEMA, Warmup
from parking.utils.errors import UserError


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
    return SimpleNamespace(
        iter=0,
        storage=EventStorage(),
        start_iter=0,
        max_iter=max_iter,
        release_state_dict=dict,
        optimizer_has_stepped=True,
        evaluated_before=-1,
        skip_unless_finite=lambda: None,
        flush_metrics=lambda: None,
    )


def test_warmup_sets_each_kind_of_group():
    weight, bias = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(
        [{"params": [weight], "kind": "weight"}, {"params": [bias], "kind": "bias"}], lr=0.01, momentum=0.9
    )
    scheduler = SimpleNamespace(get_lr=lambda: [0.01, 0.01])
    hook = WarmupHook(Warmup(num_iters=4, bias_lr=0.1, start_momentum=0.5, momentum=0.9), optimizer, scheduler)
    hook.trainer = make_trainer()
    hook.trainer.iter = 1
    hook.before_step()
    # A quarter of the way.
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.0025, 0.0775])
    assert [g["momentum"] for g in optimizer.param_groups] == pytest.approx([0.6, 0.6])
    optimizer.param_groups[0]["lr"] = 0.007
    hook.trainer.iter = 5
    hook.before_step()
    assert optimizer.param_groups[0]["lr"] == 0.007, "after the warm-up the schedule's rate stays"


def test_warmup_of_adamw_moves_the_first_beta():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [weight], "kind": "weight"}], lr=0.01, betas=(0.9, 0.999))
    scheduler = SimpleNamespace(get_lr=lambda: [0.01])
    hook = WarmupHook(Warmup(num_iters=4, bias_lr=0.1, start_momentum=0.5, momentum=0.9), optimizer, scheduler)
    hook.trainer = make_trainer()
    hook.before_step()
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_ema_moves_only_with_the_optimizer():
    model = torch.nn.Linear(1, 1)
    ema = ModelEMA(model, decay=0.9, warmup=1.0)
    hook = EMAHook(ema, model)
    hook.trainer = make_trainer()
    hook.trainer.optimizer_has_stepped = False
    hook.after_step()
    assert ema.num_updates == 0
    hook.trainer.optimizer_has_stepped = True
    hook.after_step()
    assert ema.num_updates == 1


def test_checkpoints_by_period_and_at_the_end():
    recorder = Recorder()
    hook = CheckpointHook(recorder, period=4)
    hook.trainer = make_trainer(max_iter=10)
    for hook.trainer.iter in range(10):
        hook.after_step()
    assert recorder.saved == [
        "model_0000003",
        "model_0000007",
        ("model_final", {"iteration": 9}),
        "model_0000009",
    ]


def follow(hook, values, start_iter=0):
    hook.trainer = make_trainer()
    hook.trainer.start_iter = start_iter
    with EventStorage() as storage:
        hook.trainer.storage = storage
        hook.before_train()
        for iteration, value in values:
            storage.iter = iteration
            hook.trainer.evaluated_before = iteration + 1
            if value is not None:
                storage.put_scalar("bbox/AP75", value, smoothing_hint=False)
            hook.after_step()


def test_best_ignores_nan_and_what_is_not_better():
    recorder = Recorder()
    follow(
        BestCheckpointHook(recorder, "bbox/AP75"),
        [(0, None), (1, float("nan")), (2, 10.0), (3, None), (4, 9.0), (5, 10.5)],
    )
    assert [(values["iteration"], values["value"]) for _, values in recorder.saved] == [(2, 10.0), (5, 10.5)]


@pytest.mark.parametrize(("metric", "saved"), [("bbox/AP75", [11.0]), ("bbox/AP", [9.5, 11.0])])
def test_a_resumed_training_knows_the_best_weights_on_disk(metric, saved):
    # Those of another metric are no rival.
    recorder = Recorder(values={"metric": metric, "value": 10.0})
    follow(BestCheckpointHook(recorder, "bbox/AP75"), [(5, 9.5), (6, 11.0)], start_iter=5)
    assert [values["value"] for _, values in recorder.saved] == saved


def test_a_new_training_ignores_the_best_weights_on_disk():
    recorder = Recorder(values={"metric": "bbox/AP75", "value": 10.0})
    follow(BestCheckpointHook(recorder, "bbox/AP75"), [(5, 9.5)])
    assert len(recorder.saved) == 1


def test_nothing_is_saved_at_the_end_after_a_loss_that_is_not_finite():
    recorder = Recorder()

    def skip_unless_finite():
        raise UserError("NaN")

    hook = CheckpointHook(recorder, period=1)
    hook.trainer = make_trainer(max_iter=1)
    hook.trainer.skip_unless_finite = skip_unless_finite
    with pytest.raises(UserError):
        hook.after_step()
    assert recorder.saved == []


def test_images_left_out_are_told_once_and_listed_at_the_end(tmp_path, caplog):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.last_batch = [{"unreadable": ["b.png"]}, {}]
    hook.after_step()
    hook.after_step()
    assert caplog.text.count("b.png") == 1
    again = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    again.load_state_dict(hook.state_dict())
    again.trainer = make_trainer(max_iter=3)
    again.trainer.last_batch = [{"unreadable": ["a.png", "b.png"]}]
    again.trainer.iter = 3
    again.after_step()
    again.after_train()
    assert (tmp_path / "unreadable_images.txt").read_text() == "a.png\nb.png\n"
    assert "left out: 2, see" in caplog.text


def test_a_name_that_is_no_text_is_listed_as_it_is(tmp_path):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.iter = 3
    hook.trainer.last_batch = [{"unreadable": [os.fsdecode(b"\xc7\xd1.png")]}]
    hook.after_step()
    hook.after_train()
    assert (tmp_path / "unreadable_images.txt").read_bytes() == b"\xc7\xd1.png\n"


def test_no_list_without_images_left_out(tmp_path):
    hook = UnreadableImagesHook(str(tmp_path / "unreadable_images.txt"))
    hook.trainer = make_trainer(max_iter=3)
    hook.trainer.iter = 3
    hook.trainer.last_batch = [{}]
    hook.after_step()
    hook.after_train()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("iteration", "evaluated"), [(9, []), (10, [10])])
def test_only_a_training_that_finished_is_evaluated_at_its_end(iteration, evaluated):
    # The iteration is 9 of 0..9 while the last step runs, or fails, and 10 after it.
    calls = []
    hook = make_eval_hook(0, calls)
    hook.trainer.iter = iteration
    with EventStorage() as hook.trainer.storage:
        hook.after_train()
    assert calls == evaluated


def make_eval_hook(period, calls, **attributes):
    def evaluate(next_iteration):
        calls.append(next_iteration)
        return {"bbox": {"AP": 50.0 + next_iteration}}

    hook = EvalHook(period, evaluate)
    hook.trainer = make_trainer(max_iter=10)
    vars(hook.trainer).update(attributes)
    return hook


def test_evaluations_are_stored_under_flat_names():
    calls = []
    hook = make_eval_hook(4, calls)
    with EventStorage() as storage:
        hook.trainer.storage = storage
        hook.before_train()
        for hook.trainer.iter in range(10):
            storage.iter = hook.trainer.iter
            hook.after_step()
        hook.trainer.iter = 10
        hook.after_train()
    assert calls == [4, 8, 10]
    assert storage.history("bbox/AP").latest() == 60.0


@pytest.mark.parametrize(
    ("start_iter", "evaluated_before", "calls"), [(8, 4, [8]), (8, 8, []), (7, 4, []), (10, 8, []), (0, -1, [])]
)
def test_an_evaluation_that_an_interruption_prevented_is_made_up_for(start_iter, evaluated_before, calls):
    done = []
    hook = make_eval_hook(4, done, start_iter=start_iter, evaluated_before=evaluated_before)
    with EventStorage(start_iter) as hook.trainer.storage:
        hook.before_train()
    assert done == calls


def test_ctrl_c_saves_after_the_iteration():
    recorder = Recorder()
    hook = InterruptHook(recorder)
    hook.trainer = make_trainer()
    before = signal.getsignal(signal.SIGINT)
    hook.before_train()
    try:
        hook.after_step()
        assert recorder.saved == []
        os.kill(os.getpid(), signal.SIGINT)
        hook.trainer.iter = 3
        with pytest.raises(KeyboardInterrupt):
            hook.after_step()
        assert recorder.saved == ["model_0000003"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        hook.after_train()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_best_is_found_in_every_evaluation_also_after_one_that_was_made_up_for():
    recorder = Recorder({"metric": "bbox/AP75", "value": 5.0})
    hook = BestCheckpointHook(recorder, "bbox/AP75")
    hook.trainer = make_trainer()
    hook.trainer.start_iter = hook.trainer.evaluated_before = 3
    with EventStorage(3) as hook.trainer.storage:
        hook.trainer.storage.put_scalar("bbox/AP75", 6.0)
        hook.before_train()
        hook.trainer.evaluated_before = 4
        hook.trainer.storage.put_scalar("bbox/AP75", 9.0)
        hook.after_step()
    assert [(values["iteration"], values["value"]) for _, values in recorder.saved] == [(2, 6.0), (3, 9.0)]


def test_a_score_that_cannot_be_computed_is_not_an_earlier_one_and_told_once(caplog):
    recorder = Recorder()
    hook = BestCheckpointHook(recorder, "bbox/AP75-cart")
    hook.trainer = make_trainer()
    with EventStorage(0) as hook.trainer.storage:
        # A nan is not stored, so that the storage still has the score of the evaluation before.
        for iteration, score in enumerate([None, 7.0, None, None, 8.0]):
            hook.trainer.evaluated_before = iteration + 1
            if score is not None:
                hook.trainer.storage.put_scalar("bbox/AP75-cart", score)
            hook.after_step()
            hook.trainer.storage.step()
    assert [values["value"] for _, values in recorder.saved] == [7.0, 8.0]
    assert caplog.text.count("bbox/AP75-cart cannot be computed") == 1
