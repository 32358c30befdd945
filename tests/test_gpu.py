"""What can only be seen on a GPU: ``python -m pytest -m gpu``. `make test` leaves these out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parking.challenge.registration import register_datasets_from_config
from parking.config import get_cfg
from parking.engine import Trainer
from parking.inference.build import build_model
from parking.modeling import DENSE_HEAD_REGISTRY

HEADS = [name for name, head in DENSE_HEAD_REGISTRY if head.__module__.startswith("parking.")]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


TINY = {
    "INPUT.SIZE_TRAIN": "[64, 96]",
    "INPUT.SIZE_TEST": 96,
    "SOLVER.IMS_PER_BATCH": 4,
    "SOLVER.MAX_ITER": 6,
    "DATALOADER.NUM_WORKERS": 1,
}


def make_cfg(**changes):
    cfg = get_cfg()
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
    cfg.MODEL.DEVICE = "cuda"
    cfg.merge_from_list([x for pair in changes.items() for x in map(str, pair)])
    return cfg


def test_the_network_gives_the_same_on_cpu_and_gpu():
    torch.manual_seed(0)
    cfg = make_cfg()
    on_gpu = build_model(cfg).eval()
    cfg.MODEL.DEVICE = "cpu"
    on_cpu = build_model(cfg).eval()
    on_cpu.load_state_dict(on_gpu.state_dict())
    images = torch.rand(2, 3, 128, 160)
    with torch.no_grad():
        found, expected = on_gpu.predict(images.cuda()), on_cpu.predict(images)
    for name in ("boxes", "scores", "upper_bound"):
        torch.testing.assert_close(getattr(found, name).cpu(), getattr(expected, name), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_training_steps_and_resumes(tiny_scenes, tmp_path, head, mixed_precision):
    opts = {"DATASETS.ROOT": tiny_scenes, "OUTPUT_DIR": tmp_path, "SOLVER.WARMUP_ITERS": 2, "SEED": 0}
    opts |= {"MODEL.HEAD.NAME": head, "SOLVER.NOMINAL_BATCH_SIZE": 8, "SOLVER.AMP.ENABLED": mixed_precision}
    opts |= {"INPUT.AUG.STRONG_OFF_ITERS": 2}
    cfg = make_cfg(**TINY, **opts)
    register_datasets_from_config(cfg)
    trainer = Trainer(cfg)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not torch.equal(after[name], tensor) for name, tensor in before.items() if name.endswith("weight"))
    again = Trainer(cfg)
    again.resume_or_load(resume=True)
    assert again.start_iter == 6
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, after[name]), name


def test_a_seed_gives_the_same_weights_each_time(tiny_scenes, tmp_path):
    """Bit for bit, by deterministic kernels, which are a setting of a process: each training has its own."""
    root = Path(__file__).resolve().parents[1]
    opts = {**TINY, "DATASETS.ROOT": tiny_scenes, "SOLVER.AMP.ENABLED": True}
    weights = []
    for name in ("first", "second"):
        args = [x for pair in {**opts, "OUTPUT_DIR": tmp_path / name}.items() for x in map(str, pair)]
        config = ["--config-file", root / "configs/quickstart.yaml"]
        command = [sys.executable, root / "tools/train_net.py", *config, *args]
        # Keep the PYTHONPATH, on which detectron2 may be.
        path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": path})
        weights.append(torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"])
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
