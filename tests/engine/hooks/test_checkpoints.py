import pytest
from detectron2.utils.events import EventStorage

from parking.engine.hooks.checkpoints import BestCheckpointHook, CheckpointHook
from parking.utils.errors import UserError

from .stand_ins import Recorder, make_loop, make_trainer


def save_while_training(recorder, loop, *, period, max_iter):
    hook = CheckpointHook(recorder, loop, period, dict)
    hook.trainer = make_trainer(max_iter)
    for iteration in range(max_iter):
        hook.trainer.iter = loop.iter = iteration
        loop.is_amid_step = iteration not in getattr(loop, "steps", range(max_iter))
        hook.after_step()


@pytest.mark.parametrize(("steps", "saved"), [(range(10), [3, 7]), ([2, 5, 8], [5, 8]), ([0, 9], [])])
def test_checkpoints_by_period_after_the_next_step_and_at_the_end(steps, saved):
    recorder = Recorder()
    save_while_training(recorder, make_loop(steps=steps), period=4, max_iter=10)
    *others, release, last = recorder.saved
    assert others == [f"model_{iteration:07d}" for iteration in saved]
    assert (release, last) == (("model_final", {"iteration": 9}), "model_0000009")


def follow(recorder, values, start_iter=0):
    """Evaluate after the iterations of ``values``; None: the score cannot be computed and is not stored."""
    hook = BestCheckpointHook(recorder, "bbox/AP75", dict)
    hook.trainer = make_trainer()
    hook.trainer.start_iter = start_iter
    with EventStorage(start_iter) as storage:
        hook.trainer.storage = storage
        hook.before_train()
        for iteration, value in values:
            storage.iter = iteration
            if value is not None:
                storage.put_scalar("bbox/AP75", value, smoothing_hint=False)
            hook.after_evaluation(iteration + 1)
    return [(values["iteration"], values["value"]) for _, values in recorder.saved]


def test_best_ignores_nan_and_what_is_not_better():
    values = [(0, None), (1, float("nan")), (2, 10.0), (3, None), (4, 9.0), (5, 10.5)]
    assert follow(Recorder(), values) == [(2, 10.0), (5, 10.5)]


@pytest.mark.parametrize(("metric", "saved"), [("bbox/AP75", [(6, 11.0)]), ("bbox/AP", [(5, 9.5), (6, 11.0)])])
def test_a_resumed_training_knows_the_best_weights_on_disk(metric, saved):
    # The best value of another metric is not compared.
    recorder = Recorder(values={"metric": metric, "value": 10.0})
    assert follow(recorder, [(5, 9.5), (6, 11.0)], start_iter=5) == saved


def test_a_new_training_ignores_the_best_weights_on_disk():
    recorder = Recorder(values={"metric": "bbox/AP75", "value": 10.0})
    assert follow(recorder, [(5, 9.5)]) == [(5, 9.5)]


def test_nothing_is_saved_at_the_end_after_a_loss_that_is_not_finite():
    recorder = Recorder()

    def skip_unless_finite():
        raise UserError("NaN")

    with pytest.raises(UserError):
        save_while_training(recorder, make_loop(skip_unless_finite=skip_unless_finite), period=1, max_iter=1)
    assert recorder.saved == []


def test_a_score_that_cannot_be_computed_is_not_an_earlier_one_and_told_once(caplog):
    # The storage still has the score of the evaluation before.
    assert follow(Recorder(), enumerate([None, 7.0, None, None, 8.0])) == [(1, 7.0), (4, 8.0)]
    assert caplog.text.count("bbox/AP75 cannot be computed") == 1
