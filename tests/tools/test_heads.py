"""Every head trains, resumes, is evaluated, infers and is exported; also one that is written here, and nowhere else."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from parking.checkpoint import load_weights, read_weights
from parking.config import get_cfg
from parking.inference.build import build_model
from parking.modeling import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ("--config-file", ROOT / "configs" / "quickstart.yaml")
# AnchorHead, the default, has tests/tools/test_end_to_end.py.
HEADS = ["PointHead", "DistributionHead", "YOLOXHead"]
# Keys that go with a head.
KEYS = {"YOLOXHead": ["MODEL.CSP_DARKNET.LAYOUT", "yolox", "MODEL.YOLO.DEPTHWISE", "True"]}
OPTS = [
    *("SEED", "0", "DATALOADER.NUM_WORKERS", "0", "MODEL.DEVICE", "cpu"),
    *("INPUT.SIZE_TRAIN", "[64, 96]", "INPUT.SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", "4"),
    *("SOLVER.WARMUP_ITERS", "2", "SOLVER.CHECKPOINT_PERIOD", "1", "SOLVER.CHECKPOINTS_TO_KEEP", "4"),
    # Strong augmentation ends before the last iteration; YOLOXHead has another loss from then on.
    *("INPUT.AUG.STRONG_OFF_ITERS", "1", "MODEL.YOLO.SCORE_THRESH_TEST", "1e-5"),
    *("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", "bfloat16"),
]


@DENSE_HEAD_REGISTRY.register()
class PointHead(DenseHead):
    """The centre of each cell predicts the distances to four sides, in strides, and the classes; nothing else."""

    def __init__(self, cfg, input_shape):
        super().__init__()
        self.strides = [shape.stride for shape in input_shape]
        num_outputs = 4 + cfg.MODEL.YOLO.NUM_CLASSES
        self.outputs = nn.ModuleList(nn.Conv2d(shape.channels, num_outputs, 1) for shape in input_shape)

    def forward(self, features):
        return [output(feature) for output, feature in zip(self.outputs, features, strict=True)]

    def decode(self, raw):
        boxes, logits = self._read(raw)
        return DensePredictions(boxes, logits.sigmoid(), tuple(level[0, 0].numel() for level in raw))

    def losses(self, raw, gt_instances, image_size):
        boxes, logits = self._read(raw)
        target, loss_box = torch.zeros_like(logits), boxes.sum() * 0
        for i, instances in enumerate(gt_instances):
            for box, label in zip(instances.gt_boxes.tensor, instances.gt_classes, strict=True):
                nearest = (boxes[i].detach() - box).abs().sum(dim=1).argmin()
                target[i, nearest, label] = 1
                loss_box = loss_box + (boxes[i, nearest] - box).abs().sum() / max(image_size)
        return {"loss_box": loss_box, "loss_cls": F.binary_cross_entropy_with_logits(logits, target, reduction="sum")}

    def class_rows(self):
        names = [f"outputs.{level}.{name}" for level in range(len(self.outputs)) for name in ("weight", "bias")]
        return {name: ClassRows(groups=1, before=4, prior=-4.0 if name.endswith("bias") else 0.0) for name in names}

    def _read(self, raw):
        boxes = []
        for level, stride in zip(raw, self.strides, strict=True):
            y, x = (torch.arange(size, dtype=torch.float32) + 0.5 for size in level.shape[2:])
            points = torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], dim=1)
            sides = level[:, :4].float().exp().flatten(2).transpose(1, 2)
            boxes.append(torch.cat([points - sides[..., :2], points + sides[..., 2:]], dim=2) * stride)
        logits = torch.cat([level[:, 4:].float().flatten(2).transpose(1, 2) for level in raw], dim=1)
        return torch.cat(boxes, dim=1), logits


@pytest.fixture(scope="module", params=HEADS)
def trained(request, tiny_scenes, tmp_path_factory, run_here):
    """Options of a training, OUTPUT_DIR of it with an evaluation at its end, and what it printed."""
    folder = tmp_path_factory.mktemp("head") / "out"
    opts = [*OPTS, "MODEL.HEAD.NAME", request.param, *KEYS.get(request.param, ()), "DATASETS.ROOT", tiny_scenes]
    code, out, err = run_here("train_net.py", *QUICKSTART, *opts, "OUTPUT_DIR", folder)
    assert code == 0, out + err
    return opts, folder, out


def test_it_trains_and_a_resumed_training_ends_with_the_same_weights(trained, run_here, tmp_path):
    opts, folder, printed = trained
    assert "loss_box" in printed and "AP75" in printed
    assert ("loss_l1" in printed) == ("YOLOXHead" in opts)
    begun = tmp_path / "out"
    shutil.copytree(folder, begun)
    for name in ("finished", "model_final.pth", "model_0000002.pth", "model_0000003.pth"):
        (begun / name).unlink(missing_ok=True)
    (begun / "last_checkpoint").write_text("model_0000001.pth")
    code, out, err = run_here("train_net.py", *QUICKSTART, "--resume", *opts, "OUTPUT_DIR", begun)
    assert code == 0, out + err
    whole, parts = (torch.load(path / "model_final.pth", weights_only=True)["model"] for path in (folder, begun))
    assert {f"head.{name}" for name in make_model(opts).head.class_rows()} < set(whole)
    assert_close(parts, whole, rtol=0, atol=0)


def test_it_is_evaluated(trained, run_here, tmp_path):
    opts, folder, _ = trained
    weights = ("MODEL.WEIGHTS", folder / "model_final.pth", "OUTPUT_DIR", tmp_path)
    code, out, err = run_here("train_net.py", "--eval-only", *QUICKSTART, *opts, *weights)
    assert code == 0, out + err
    assert "sedan" in out and "AP75" in out


@pytest.mark.parametrize("fusion", ["nms", "wbf"])
def test_it_infers_with_test_time_augmentation(trained, run_here, tiny_scenes, tmp_path, fusion):
    images = tiny_scenes / "test" / "images"
    code, out, err = run_here(
        *("infer.py", "--weights", trained[1] / "model_final.pth", "--input", images, "--output", tmp_path),
        *("TEST.AUG.ENABLED", True, "TEST.FUSION.NAME", fusion, "DATALOADER.NUM_WORKERS", 0),
    )
    assert code == 0, out + err
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len({box["image_id"] for box in found}) == len(list(images.iterdir()))


def make_model(opts, num_classes=14):
    cfg = get_cfg()
    cfg.merge_from_file(str(QUICKSTART[1]))
    cfg.merge_from_list([*map(str, opts), "MODEL.YOLO.NUM_CLASSES", str(num_classes)])
    torch.manual_seed(0)
    return build_model(cfg).eval()


@torch.no_grad()
@pytest.mark.parametrize("will_train", [True, False])
def test_its_classes_are_mapped_from_other_weights(trained, will_train):
    opts, folder, _ = trained
    weights = read_weights(folder / "model_final.pth")
    model, original = make_model(opts, 3), make_model(opts)
    load_weights(original, weights)
    names, class_map = ["tractor", "lorry", "bus"], [["lorry", "truck"]]
    load_weights(model, weights, class_names=names, class_map=class_map, will_train=will_train)
    images = torch.rand(2, 3, 64, 96)
    expected, found = original.predict(images), model.predict(images)
    assert_close(found.boxes, expected.boxes)
    for i, name in ((1, "truck"), (2, "bus")):
        assert_close(found.scores[..., i], expected.scores[..., weights.class_names.index(name)])
    if not will_train:
        assert not found.scores[..., 0].any()
    for name, rows in model.head.class_rows().items():
        parameter = model.head.get_parameter(name)
        unknown = parameter.unflatten(0, (rows.groups, -1))[:, rows.before]
        assert unknown.eq(rows.prior if will_train else -1e4 if parameter.dim() == 1 else 0).all()


class Exported(nn.Module):
    """What leaves a network: boxes and scores of images that are normalised and padded."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        predictions = self.model.predict(images)
        return predictions.boxes, predictions.scores


@torch.no_grad()
@pytest.mark.parametrize("head", ["AnchorHead", *HEADS])
def test_it_goes_through_export(head):
    opts = [*OPTS, "MODEL.HEAD.NAME", head, *KEYS.get(head, ())]
    model, images = make_model(opts, 3), torch.rand(1, 3, 64, 96)
    program = torch.export.export(Exported(model), (images,))
    assert_close(program.module()(images), Exported(model)(images))
