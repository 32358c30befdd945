"""How the arrays beside this file were made from what the published YOLOv5 (v7) computed; see README.md.

python make.py FOLDER        FOLDER: loss_inputs.npz, dfl_loss_inputs.npz, yolov5n_forward.npz, yolov5n_tta.npz, ...
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
# Rows whose best score is lower are no candidates in any of the published suppressions.
LOWEST_THRESHOLD = 0.001
# The model and size whose inputs of the distribution loss are smallest; outputs are the same without targets.
DFL_CASE = "yolov5n6u_random_14_192x256"


def make_loss_inputs(source: Path) -> dict[str, np.ndarray]:
    """Head outputs in half precision, which is within the tolerances of the test, and the targets."""
    arrays = np.load(source / "loss_inputs.npz")
    return {key: arrays[key].astype(np.float16) if "pred" in key else arrays[key] for key in arrays}


def make_nms_inputs(source: Path) -> dict[str, np.ndarray]:
    """(P, 85) decoded predictions that can be candidates, and the published detections (K, 6)."""
    result = dict(np.load(source / "yolov5n_nms.npz"))
    for name, file, key in (("plain", "yolov5n_forward.npz", "decoded"), ("tta", "yolov5n_tta.npz", "augmented")):
        for image, rows in enumerate(np.load(source / file)[key]):
            scores = rows[:, 4:5] * rows[:, 5:]
            kept = rows.copy()
            kept[:, 5:][scores <= LOWEST_THRESHOLD] = 0
            result[f"{name}_image{image}"] = kept[(scores > LOWEST_THRESHOLD).any(axis=1)]
    return result


def make_decoding(source: Path) -> dict[str, np.ndarray]:
    """Raw outputs and decoded predictions of one image by the model with four levels."""
    arrays = np.load(source / "yolov5n6_forward.npz")
    return {key: arrays[key][:1] for key in arrays if key != "image_rgb_uint8"}


def make_dfl_loss(source: Path) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Head outputs and targets of one case, and the numbers with and without these targets."""
    arrays = np.load(source / "dfl_loss_inputs.npz")
    expected = json.loads((source / "dfl_loss_expected.json").read_text())
    inputs = {name: arrays[f"{DFL_CASE}_targets/{name}"] for name in ("boxes_raw", "scores_raw", "targets")}
    return inputs, {case: expected[f"{DFL_CASE}_{case}"] for case in ("targets", "empty")}


def main() -> None:
    source = Path(sys.argv[1])
    inputs, expected = make_dfl_loss(source)
    np.savez_compressed(HERE / "dfl_loss_inputs.npz", **inputs)
    (HERE / "dfl_loss_expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    np.savez_compressed(HERE / "loss_inputs.npz", **make_loss_inputs(source))
    np.savez_compressed(HERE / "nms.npz", **make_nms_inputs(source))
    np.savez_compressed(HERE / "decoding.npz", **make_decoding(source))
    for name in ("loss_expected.json", "schedule_expected.json", "split_expected.json"):
        shutil.copyfile(source / name, HERE / name)


if __name__ == "__main__":
    main()
