import pytest
from detectron2.utils.events import EventStorage

from parking.engine.hooks.evaluation import EvalHook, Evaluations

from .stand_ins import make_trainer


@pytest.mark.parametrize(("iteration", "evaluated"), [(9, []), (10, [10])])
def test_only_a_training_that_finished_is_evaluated_at_its_end(iteration, evaluated):
    # The iteration is 9 of 0..9 while the last step runs, or fails, and 10 after it.
    calls = []
    hook = make_eval_hook(0, calls)
    hook.trainer.iter = iteration
    with EventStorage() as hook.trainer.storage:
        hook.after_train()
    assert calls == evaluated


def make_eval_hook(period, calls, start_iter=0, evaluated_before=-1):
    evaluations = Evaluations(before=evaluated_before)

    def evaluate(next_iteration):
        evaluations.before = next_iteration
        return {"bbox": {"AP": 50.0 + next_iteration}}

    hook = EvalHook(period, evaluate, evaluations, [calls.append])
    hook.trainer = make_trainer(max_iter=10)
    hook.trainer.start_iter = start_iter
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


def test_nothing_follows_an_evaluation_that_was_left_out():
    hook = EvalHook(0, lambda next_iteration: {}, Evaluations(), [pytest.fail])
    hook.trainer = make_trainer(max_iter=10)
    hook.trainer.iter = 10
    hook.after_train()


@pytest.mark.parametrize(
    ("start_iter", "evaluated_before", "calls"), [(8, 4, [8]), (8, 8, []), (7, 4, []), (10, 8, []), (0, -1, [])]
)
def test_an_evaluation_that_an_interruption_prevented_is_made_up_for(start_iter, evaluated_before, calls):
    done = []
    hook = make_eval_hook(4, done, start_iter=start_iter, evaluated_before=evaluated_before)
    with EventStorage(start_iter) as hook.trainer.storage:
        hook.before_train()
    assert done == calls
