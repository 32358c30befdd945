import os
import signal

import pytest

from parking.engine.hooks import InterruptHook

from .stand_ins import Recorder, make_trainer


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
