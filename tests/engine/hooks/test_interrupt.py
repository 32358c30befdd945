import os
import signal

import pytest

from parking.engine.hooks.interrupt import InterruptHook, StopRequest

from .stand_ins import Recorder, make_loop, make_trainer


def test_ctrl_c_saves_after_the_next_step():
    recorder = Recorder()
    loop, request = make_loop(), StopRequest()
    hook = InterruptHook(recorder, loop, request)
    hook.trainer = make_trainer()
    before = signal.getsignal(signal.SIGINT)
    hook.before_train()
    try:
        hook.after_step()
        assert recorder.saved == []
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_made
        loop.is_amid_step = True
        hook.after_step()
        assert recorder.saved == []
        hook.trainer.iter = loop.iter = 3
        loop.is_amid_step = False
        with pytest.raises(KeyboardInterrupt):
            hook.after_step()
        assert recorder.saved == ["model_0000003"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        hook.after_train()
    assert signal.getsignal(signal.SIGINT) is before
