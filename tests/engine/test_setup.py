import argparse
import os

import pytest

from parking.config import get_cfg
from parking.engine import setup
from parking.engine.setup import check_output_dir, claim_output_dir
from parking.utils.errors import UserError


@pytest.mark.parametrize("name", ["config.yaml", "log.txt", "log.txt.rank1", "metrics.json"])
def test_nothing_is_written_through_a_link_or_into_a_fifo(tmp_path, name):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "log.txt.rank2").write_text("of an earlier run")
    for make in (lambda path: path.symlink_to("mine"), lambda path: path.symlink_to("nowhere"), os.mkfifo):
        make(tmp_path / name)
        with pytest.raises(UserError, match=name):
            check_output_dir(str(tmp_path), may_hold_training=True)
        (tmp_path / name).unlink()
    check_output_dir(str(tmp_path), may_hold_training=True)


@pytest.mark.parametrize(
    "name",
    ["config.yaml", "log.txt", "metrics.json", "events.out.tfevents.17.host", "seconds_used", "unreadable_images.txt"],
)
def test_what_no_training_wrote_stays(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match=name.split(".")[0]):
        check_output_dir(str(tmp_path), may_hold_training=False)
    # By --resume or --overwrite, the user has said that it is a training's, perhaps of a version without marks.
    check_output_dir(str(tmp_path), may_hold_training=True)
    claim_output_dir(str(tmp_path))
    check_output_dir(str(tmp_path), may_hold_training=False)


def test_a_start_that_failed_is_started_again(tmp_path):
    check_output_dir(str(tmp_path / "out"), may_hold_training=False)
    claim_output_dir(str(tmp_path / "out"))
    for name in ("config.yaml", "log.txt", "log.txt.rank1", "events.out.tfevents.17.host"):
        (tmp_path / "out" / name).write_text("ours")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    check_output_dir(str(tmp_path / "out"), may_hold_training=False)


def test_a_run_that_is_killed_while_it_writes_its_config_leaves_the_earlier_one(tiny_scenes, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(*args):
        raise Killed

    cfg = get_cfg()
    cfg.DATASETS.ROOT, cfg.OUTPUT_DIR, cfg.MODEL.DEVICE = str(tiny_scenes), str(tmp_path), "cpu"
    setup.setup_training(cfg.clone(), argparse.Namespace())
    written = (tmp_path / "config.yaml").read_text()
    assert "MODEL:" in written
    cfg.SEED = 5
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("os.replace", kill)
        setup.setup_training(cfg.clone(), argparse.Namespace())
    assert (tmp_path / "config.yaml").read_text() == written
