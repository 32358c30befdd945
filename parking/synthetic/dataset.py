"""Writes made-up scenes to disk in the layout of the challenge's data."""

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from parking.challenge.classes import CLASS_NAMES
from parking.synthetic.planning import SequencePlan, plan_sequences
from parking.synthetic.scene import render_sequence
from parking.utils.errors import UserError
from parking.utils.processes import run_in_processes

_TRAIN, _TEST = 0, 1
_RESULTS = ("train", "test", "Test_Images_Information.json", "sample_submission.json")
#: Options for writing PNGs; twice as fast as the default options, and the files of these pictures are no larger.
_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_SUB)

Boxes = list[tuple[int, tuple[int, int, int, int]]]


@dataclass(frozen=True)
class _Job:
    plan: SequencePlan
    folder: Path
    file_names: tuple[str, ...]


def make_dataset(
    output: str | Path,
    *,
    num_train: int = 640,
    num_test: int = 40,
    size: tuple[int, int] = (960, 540),
    seed: int = 0,
    balanced: bool = False,
    workers: int = 1,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, int]:
    """Draw a training and a test set; the same arguments give the same bytes, whatever the number of `workers`.

    Files get their final names only when all are drawn; a run that fails or is interrupted leaves nothing behind.

    Args:
        output: folder; made if missing.
        size: (width, height) in pixels.
        balanced: whether all classes have equal shares, instead of a long tail of rare classes.
        workers: number of processes; 1 draws in this process.
        progress: called with the number of images drawn since its last call.

    Returns:
        The number of training boxes by class name.

    Raises:
        UserError: `output` already holds a data set or cannot be written.
    """
    output = Path(output)
    taken = [name for name in _RESULTS if (output / name).exists()]
    if taken:
        raise UserError(
            f"{output} already holds data ({', '.join(taken)}): choose another --output, or remove it first"
        )
    try:
        with _workplace(output) as place:
            train = _train_jobs(plan_sequences(num_train, size, seed, _TRAIN, balanced), place / "train" / "images")
            test = _test_jobs(plan_sequences(num_test, size, seed, _TEST, balanced), place / "test" / "images", seed)
            drawn = run_in_processes(
                _draw_job, [*train, *test], num_workers=workers, done=lambda job: progress(len(job.file_names))
            )
            num_boxes = _write_train_json(place / "train" / "label" / "Train.json", train, drawn[: len(train)])
            _write_test_json(place, test)
            for name in _RESULTS:
                (place / name).rename(output / name)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    return num_boxes


@contextmanager
def _workplace(output: Path) -> Iterator[Path]:
    """Yield a new folder inside `output` and remove it at the end; on failure, also remove `output` if it is new."""
    existed = output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output) as place:
            for folder in ("train/images", "train/label", "test/images"):
                os.makedirs(f"{place}/{folder}")
            yield Path(place)
    except BaseException:
        if not existed:
            with suppress(OSError):
                output.rmdir()
        raise


def _train_jobs(plans: Iterator[SequencePlan], folder: Path) -> list[_Job]:
    return [
        _Job(plan, folder, tuple(str(replace(plan.name, frame=plan.name.frame + k)) for k in range(plan.length)))
        for plan in plans
    ]


def _test_jobs(plans: Iterator[SequencePlan], folder: Path, seed: int) -> list[_Job]:
    rng = np.random.default_rng(np.random.SeedSequence([seed, _TEST]))
    return [
        _Job(plan, folder, tuple(f"{uuid.UUID(bytes=rng.bytes(16), version=4)}.png" for _ in range(plan.length)))
        for plan in plans
    ]


def _draw_job(job: _Job) -> list[Boxes]:
    boxes = []
    for file_name, frame in zip(job.file_names, render_sequence(job.plan), strict=True):
        bgr = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        # Use imencode, because imwrite fails for Korean file names on some systems.
        _, png = cv2.imencode(".png", bgr, _PNG_OPTIONS)
        (job.folder / file_name).write_bytes(png.tobytes())
        boxes.append([(job.plan.objects[k].category, box) for k, box in frame.boxes.items()])
    return boxes


def _write_train_json(path: Path, jobs: list[_Job], drawn: list[list[Boxes]]) -> dict[str, int]:
    images, annotations = [], []
    counts = dict.fromkeys(CLASS_NAMES, 0)
    for job, frames in zip(jobs, drawn, strict=True):
        width, height = job.plan.size
        for file_name, boxes in zip(job.file_names, frames, strict=True):
            images.append({"id": len(images) + 1, "file_name": file_name, "width": width, "height": height})
            for category, box in boxes:
                counts[CLASS_NAMES[category]] += 1
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(images),
                        "category_id": category + 1,
                        "bbox": list(box),
                        "area": box[2] * box[3],
                        "iscrowd": 0,
                    }
                )
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASS_NAMES, start=1)]
    _write_json(path, {"images": images, "annotations": annotations, "categories": categories})
    return counts


def _write_test_json(place: Path, jobs: list[_Job]) -> None:
    names = [file_name for job in jobs for file_name in job.file_names]
    images = [{"id": k, "file_name": file_name} for k, file_name in enumerate(names, start=1)]
    _write_json(place / "Test_Images_Information.json", {"images": images})
    # The sample submission has the same single box in every image, because it only shows the format.
    example = {"category_id": 1, "bbox": [10.0, 10.0, 50.0, 40.0], "score": 0.5, "segmentation": []}
    _write_json(place / "sample_submission.json", [{"image_id": image["id"], **example} for image in images])


def _write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
