import re

import torch

from parking.benchmark.infer import make_weights, run_infer_benchmark
from parking.config import get_cfg
from parking.inference.build import build_inference_model


def make_cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
    cfg.INPUT.SIZE_TEST = 192
    cfg.DATALOADER.NUM_WORKERS = 1
    return cfg


def test_lines(tiny_scenes, monkeypatch):
    monkeypatch.setattr("parking.benchmark.infer._MIN_SECONDS", 0)
    cfg = make_cfg()
    cfg.TEST.IMS_PER_BATCH = 2
    lines = list(run_infer_benchmark(cfg, str(tiny_scenes), num_images=3, num_passes=2))
    text = "\n".join(lines)
    assert "float32, batches of 2 PNGs of 1920 x 1080 at 192, one view" in lines[0]
    assert re.search(r"bare model: +[\d.]+ images/s", text)
    assert re.search(r"decode [\d.]+ \(one process of 1\), network [\d.]+, upload and NMS of \d+ candidates", text)
    assert re.search(r"pipeline: +[\d.]+ images/s with 1 workers\n19521 images in", text)


def test_made_up_weights_have_as_many_candidates_as_a_detector():
    cfg = make_cfg()
    images = [torch.randint(0, 256, (3, 108, 192), dtype=torch.uint8) for _ in range(2)]
    model = build_inference_model(cfg, make_weights(cfg, images))
    batch = model.preprocess_image([{"image": image} for image in images]).tensor
    with torch.no_grad():
        found = (model.predict(batch).scores > cfg.MODEL.YOLO.SCORE_THRESH_TEST).sum()
    assert 1900 < found < 2100
