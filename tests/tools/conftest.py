"""Running the tools."""

import logging
import runpy
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def run_here(monkeypatch, capsys):
    """``run_here(script, *args)``: exit code, stdout, stderr of it in this process.

    That saves the ten seconds of the imports.
    """
    from detectron2.utils.logger import setup_logger

    def forget_loggers():
        # Their handlers write to a stdout that pytest has closed since, and what does not propagate escapes caplog.
        setup_logger.cache_clear()
        for name in ("detectron2", "fvcore", "parking"):
            logger = logging.getLogger(name)
            logger.handlers.clear()
            logger.propagate = True

    def run(script: str, *args) -> tuple[int, str, str]:
        forget_loggers()
        monkeypatch.setattr(sys, "argv", [script, *map(str, args)])
        with pytest.raises(SystemExit) as exited:
            runpy.run_path(str(TOOLS / script), run_name="__main__")
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return exited.value.code, out, err

    yield run
    forget_loggers()
