"""Running the tools."""

import contextlib
import io
import logging
import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture(scope="session")
def run_here():
    """``run_here(script, *args)``: exit code, stdout, stderr of it in this process.

    That saves the ten seconds of the imports.
    """
    from detectron2.utils.logger import setup_logger

    def forget_loggers():
        # Their handlers write to a stdout that is closed, and caplog misses messages that are not propagated.
        setup_logger.cache_clear()
        for name in ("detectron2", "fvcore", "parking"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True

    def run(script: str, *args) -> tuple[int, str, str]:
        forget_loggers()
        with (
            mock.patch.object(sys, "argv", [script, *map(str, args)]),
            contextlib.redirect_stdout(io.StringIO()) as out,
            contextlib.redirect_stderr(io.StringIO()) as err,
            pytest.raises(SystemExit) as exited,
        ):
            runpy.run_path(str(TOOLS / script), run_name="__main__")
        forget_loggers()
        assert "Traceback" not in err.getvalue()
        return exited.value.code, out.getvalue(), err.getvalue()

    return run
