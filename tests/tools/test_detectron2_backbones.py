"""A model with one of detectron2's backbones goes through all tools."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

CONFIG = Path(__file__).resolve().parents[2] / "configs/resnet50_fpn.yaml"
SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "32"]


def arguments(data, output, *opts):
    tiny = (
        "MODEL.DEVICE cpu SEED 1 SOLVER.MAX_ITER 4 SOLVER.IMS_PER_BATCH 2 SOLVER.WARMUP_ITERS 2 SOLVER.BASE_LR 0.001 "
        "SOLVER.CHECKPOINT_PERIOD 2 SOLVER.NOMINAL_BATCH_SIZE 0 TEST.EVAL_PERIOD 0 INPUT.SIZE_TRAIN [64,64] "
        "INPUT.SIZE_TEST 64 DATALOADER.NUM_WORKERS 0"
    )
    return ["--config-file", CONFIG, "DATASETS.ROOT", data, "OUTPUT_DIR", output, *tiny.split(), *SMALL, *opts]


@pytest.fixture
def train(run_here, tiny_scenes):
    return lambda output, *opts: run_here("train_net.py", *arguments(tiny_scenes, output, *opts))


@pytest.mark.long
def test_train_resume_evaluate_infer_convert(train, run_here, tiny_scenes, tmp_path):
    assert train(tmp_path / "whole")[0] == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for name in ("finished", "model_final.pth", "model_best.pth", "model_0000003.pth"):
        (tmp_path / "cut" / name).unlink()
    (tmp_path / "cut/last_checkpoint").write_text("model_0000001.pth")
    assert run_here("train_net.py", "--resume", *arguments(tiny_scenes, tmp_path / "cut"))[0] == 0
    whole, resumed = (torch.load(tmp_path / run / "model_final.pth", weights_only=True) for run in ("whole", "cut"))
    assert whole["config"]["MODEL"]["RESNETS"]["DEPTH"] == 18
    assert whole["model"].keys() == resumed["model"].keys()
    for name, tensor in whole["model"].items():
        assert tensor.equal(resumed["model"][name]), name

    assert run_here("train_net.py", "--eval-only", *arguments(tiny_scenes, tmp_path / "whole"))[0] == 0
    weights, pictures = tmp_path / "whole/model_final.pth", tiny_scenes / "test"
    infer = ("infer.py", "--input", pictures, "--output")
    assert run_here(*infer, tmp_path / "found", "--weights", weights, "MODEL.DEVICE", "cpu")[0] == 0
    assert run_here("convert_weights.py", weights, tmp_path / "m.safetensors")[0] == 0
    assert run_here(*infer, tmp_path / "again", "--weights", tmp_path / "m.safetensors", "MODEL.DEVICE", "cpu")[0] == 0
    found, again = ((tmp_path / run / "predictions.json").read_bytes() for run in ("found", "again"))
    assert found == again and json.loads(found) != []
    views = ("TEST.AUG.ENABLED", "True", "TEST.DTYPE", "bfloat16", "MODEL.DEVICE", "cpu")
    assert run_here(*infer, tmp_path / "views", "--weights", weights, *views)[0] == 0

    # Trained weights may be frozen, random ones not.
    frozen = ("MODEL.BACKBONE.FREEZE_AT", "2")
    assert train(tmp_path / "frozen", "MODEL.WEIGHTS", weights, *frozen)[0] == 0
    tuned = torch.load(tmp_path / "frozen/model_final.pth", weights_only=True)["model"]
    changed = {name for name, tensor in tuned.items() if not tensor.equal(whole["model"][name])}
    assert changed and not [name for name in changed if ".stem." in name or ".res2." in name]
    code, _, err = train(tmp_path / "refused", *frozen)
    assert code == 1 and "MODEL.BACKBONE.FREEZE_AT is 2" in err


def test_other_weights_are_one_sentence(train, weights_file, tmp_path):
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"model": {"stem.conv1.weight": np.zeros((64, 3, 7, 7), "f4")}}, protocol=2))
    for weights, words in [
        (path, ("R-50.pkl", "detectron2's .pkl")),
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", ("MODEL.WEIGHTS", "R-50.pkl", "only local files")),
        (weights_file, ("do not fit", "backbone.fpn_lateral3.weight is missing")),
    ]:
        code, _, err = train(tmp_path / "out", "MODEL.WEIGHTS", weights)
        last = err.strip().splitlines()[-1]
        assert code == 1 and last.startswith("error: ") and all(word in last for word in words)
        assert not list((tmp_path / "out").glob("*.pth"))
