import pytest

from .stand_ins import Run, stop_early


def make_budget(max_seconds, *, eval_period=0, record=None, **kwargs):
    return Run(**kwargs).add_budget(max_seconds, eval_period=eval_period, record=record)


def test_with_time_to_spare_nothing_changes():
    run = make_budget(1000.0, max_iter=1000, seconds_per_iter=0.97)
    assert run.run() == 1000
    assert run.ends == []


def test_a_run_that_is_too_slow_ends_in_time():
    # 1 s an iteration: 980 of 2000 fit into 1000 s, of which 2 % are kept.
    run = make_budget(1000.0, max_iter=2000, seconds_per_iter=1.0)
    assert run.run() == 980
    assert run.ends == [980] and run.clock.seconds <= 1000


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
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0)
    again.hooks[0].load_state_dict(run.hooks[0].state_dict())
    again.start_iter = 300
    assert again.run() == pytest.approx(980, abs=1)


def test_the_time_between_a_checkpoint_and_a_kill_counts(tmp_path):
    run = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    run.run(stop_at=200)
    at_checkpoint = run.hooks[0].state_dict()
    run.start_iter = 200
    run.run(stop_at=300)  # and is killed: what it wrote last is of iteration 300, or of the minute before
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    again.hooks[0].load_state_dict(at_checkpoint)
    again.start_iter = 200
    # 240 to 300 of the 1000 seconds are gone with 200 iterations done.
    assert 880 <= again.run() <= 940


def test_a_run_without_a_budget_counts_for_one_with(tmp_path):
    run = make_budget(None, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    run.run(stop_at=500)
    assert run.ends == []
    run.hooks[0].after_train()
    again = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    again.start_iter = 500
    assert again.run() == pytest.approx(980, abs=1)


def test_a_budget_does_not_undo_early_stopping():
    run = stop_early(2, [float(i) for i in range(25)] + [0.0] * 100, max_iter=2000).add_budget(1e6)
    run.seconds_per_iter = 1.0
    # Best after 250; 260 and 270 are worse, and one iteration follows.
    assert run.run() == 271


def test_an_evaluation_before_the_training_counts(tmp_path):
    run = make_budget(1000.0, max_iter=4000, seconds_per_iter=1.0, record=tmp_path / "seconds_used")
    (tmp_path / "seconds_used").write_text("300\n")
    run.clock.write_record()
    run.now += 100
    assert run.clock.seconds == 400
    run.hooks[0].before_train()
    assert run.clock.seconds == 400
    run.hooks[0].after_train()
    assert (tmp_path / "seconds_used").read_text() == "400\n"


def test_a_record_that_cannot_be_written_does_not_end_the_training(tmp_path, caplog):
    (tmp_path / "file").touch()
    run = make_budget(None, max_iter=200, seconds_per_iter=1.0, record=tmp_path / "file" / "seconds_used")
    assert run.run() == 200
    assert "could not be written" in caplog.text
