"""What ``infer.py`` does with images: one or several models over all of them, and the files that come of it."""

import gc
import hashlib
import itertools
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from parking.checkpoint import Weights
from parking.config import CfgNode
from parking.data.datasets.classes import CLASS_NAMES
from parking.data.datasets.images import ImageList
from parking.evaluation.detections import Detections
from parking.evaluation.journal import JournalContent, ResultsJournal
from parking.evaluation.submission_options import OptionNames, SubmissionOptions, make_submission_options
from parking.evaluation.writer import write_results
from parking.modeling import DetectionFusion
from parking.utils.errors import UserError

from .inference import find_batch_size, measure_speed, plan_inference, predict_images
from .precision import inference_dtype
from .predictor import build_inference_model
from .resume import flatten
from .setup import choose_inference_classes, describe_config, find_config_and_weights
from .time_budget import Candidate, TimeBudget, choose_candidate, list_candidates

_FUSE_AT_ONCE = 64  # images

logger = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """What one of ``--weights`` stands for; ``classes`` are the category ids by name."""

    cfg: CfgNode
    weights: Weights
    classes: dict[str, int]


@dataclass(frozen=True)
class InferenceReport:
    """What a run did.

    Attributes:
        detections: all of them, in the order of the images.
        files: paths by what they hold: "predictions", "images", and where asked for "submission".
        num_images: images that were predicted.
        unreadable: a sentence for each image that could not be read.
    """

    detections: Detections
    files: dict[str, str]
    num_images: int
    unreadable: list[str] = field(default_factory=list)


def load_models(
    config_file: str | None, weights_files: Sequence[str], opts: list[str], *, default_config: str | os.PathLike
) -> list[LoadedModel]:
    """One model for each of ``weights_files``, or the one of the config if there are none.

    Each has the config that it carries, or ``config_file`` for all; see :func:`.setup.find_config_and_weights`.

    Raises:
        UserError: something is wrong with a file or the config, or two models have different classes. What the config
            says of the end is looked at now, hours before.
    """
    models: list[LoadedModel] = []
    for path in weights_files or [None]:
        cfg, weights = find_config_and_weights(config_file, path, opts, default_config=default_config)
        classes = dict(zip(*choose_inference_classes(cfg, weights), strict=True))
        models.append(LoadedModel(cfg, weights, classes))
        first = models[0]
        if classes != first.classes:
            differing = sorted(map(str, dict(classes.items() ^ first.classes.items())))
            raise UserError(
                f"--weights {path} and {first.weights.path} have different classes or category ids "
                f"({', '.join(differing[:5])}); only models of the same classes can be used together."
            )
    inference_dtype(models[0].cfg)
    DetectionFusion(models[0].cfg)
    return models


def get_submission_options(cfg: CfgNode, classes: Mapping[str, int]) -> SubmissionOptions:
    """Those of TEST.SUBMISSION_*, checked; UserError if one is wrong.

    Args:
        classes: category id by class name, of the model's classes.
    """
    names = ("SUBMISSION_MB", "SUBMISSION_MAX_PER_IMAGE", "SUBMISSION_CLASS_FLOORS", "SUBMISSION_SPACING")
    return make_submission_options(
        max_size_mb=cfg.TEST.SUBMISSION_MB,
        max_per_image=cfg.TEST.SUBMISSION_MAX_PER_IMAGE,
        class_floors=cfg.TEST.SUBMISSION_CLASS_FLOORS,
        spacing=cfg.TEST.SUBMISSION_SPACING,
        classes=classes,
        names=OptionNames(*(f"TEST.{name}" for name in names)),
    )


def choose_submission(
    cfg: CfgNode, classes: Mapping[str, int], images: ImageList
) -> tuple[SubmissionOptions | None, str]:
    """How to write a submission; or None where there is none to write, and a sentence that says why."""
    if not images.has_ids:
        return None, images.note
    options = get_submission_options(cfg, classes)
    if not set(classes.values()) <= set(range(1, len(CLASS_NAMES) + 1)):
        return None, "the classes of these weights are not the challenge's."
    return options, ""


def run_inference(
    models: Sequence[LoadedModel],
    images: Sequence[dict],
    *,
    output_dir: str,
    submission: SubmissionOptions | None = None,
    budget: TimeBudget | None = None,
) -> InferenceReport | None:
    """Run all ``models`` over ``images``, fuse what they find, and write it below ``output_dir``.

    All processes must call it. What is found is kept in ``output_dir``/journal until everything is written: the same
    call after an interruption goes on from there, and ends with the same files.

    Args:
        models: from :func:`load_models`.
        images: from :func:`parking.data.datasets.images.list_images`.
        submission: how to write ``submission.json``, too; None: not, and an earlier run's is removed.
        budget: which of TEST.FALLBACKS is used; None: the configs as they are.

    Returns:
        The report on the main process, None on the others.

    Raises:
        UserError: machines have different images, memory runs out, or another run works in the same folder.
    """
    state = _digest_images(images)
    folder = Path(output_dir, "journal")
    if budget is not None:
        models = _choose_fallbacks(models, images, folder=folder, budget=budget, state=state)
    contents = []
    try:
        for i, model in enumerate(models):
            title = "predicting" if len(models) == 1 else f"model {i + 1} of {len(models)}"
            journal = ResultsJournal(folder / f"model-{i}", _recipe(model, state))
            contents.append(_run_model(model, images, journal, title))
    except KeyboardInterrupt:
        logger.info("What was found so far is kept in %s: the same command goes on from there.", folder)
        raise
    report = None
    if comm.is_main_process():
        detections = contents[0].detections if len(models) == 1 else _fuse(models[0], contents, images)
        rows = [{"image_id": image["image_id"], "file_name": image["relative_path"]} for image in images]
        files = write_results(detections, output_dir=output_dir, images=rows, submission=submission)
        errors = {image_id: text for content in contents for image_id, text in content.errors.items()}
        unreadable = [errors[image["image_id"]] for image in images if image["image_id"] in errors]
        report = InferenceReport(detections, files, len(images) - len(unreadable), unreadable)
    comm.synchronize()  # nothing is thrown away before all is written
    if comm.get_local_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _run_model(model: LoadedModel, images, journal: ResultsJournal, title: str) -> JournalContent | None:
    with closing(journal):
        num_done = sum(image["image_id"] in journal.done for image in images)
        if num_done:
            logger.info("%s: %d of %d images were done before the interruption", title, num_done, len(images))
        if num_done < len(images):
            detector = build_inference_model(model.cfg, model.weights, list(model.classes))
            batches = plan_inference(model.cfg, detector, images)
            category_ids = list(model.classes.values())
            predict_images(model.cfg, detector, batches, journal, category_ids=category_ids, title=title)
            del detector
            _free_memory()
        content = journal.gather()
    if content is not None and not content.done >= {image["image_id"] for image in images}:
        raise RuntimeError(f"{len(images) - len(content.done)} images were given to no process")
    return content


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the next model may need blocks of other sizes


def _choose_fallbacks(models, images, *, folder: Path, budget, state: str) -> list[LoadedModel]:
    def measure(candidate: Candidate) -> float:
        seconds = 0.0
        for model, cfg in zip(models, candidate.cfgs, strict=True):
            detector = build_inference_model(cfg, model.weights, list(model.classes))
            seconds += measure_speed(cfg, detector, plan_inference(cfg, detector, images))
            del detector
            _free_memory()
        return seconds

    chosen = choose_candidate(
        list(list_candidates([model.cfg for model in models])),
        measure,
        num_images=len(images),
        budget=budget,
        record=folder / "budget.json",
        recipe=[budget.hours, *(_recipe(model, state) for model in models)],
    )
    return [model._replace(cfg=cfg) for model, cfg in zip(models, chosen.cfgs, strict=True)]


def _fuse(model: LoadedModel, contents: Sequence[JournalContent], images) -> Detections:
    """What several models found as one; how is said by the config of the first."""
    fusion = DetectionFusion(model.cfg)
    category_ids = np.array(list(model.classes.values()), dtype=np.int64)
    image_ids = [image["image_id"] for image in images]
    opinions = [_split(content.detections, image_ids, category_ids) for content in contents]
    parts = [Detections.from_columns([], [], [], [])]
    for start in range(0, len(images), _FUSE_AT_ONCE):
        chunk = [[next(opinion) for _ in image_ids[start : start + _FUSE_AT_ONCE]] for opinion in opinions]
        for image_id, fused in zip(image_ids[start:], fusion(chunk), strict=False):
            corners = fused.pred_boxes.tensor.double().numpy()
            parts.append(
                Detections.from_columns(
                    [image_id] * len(fused),
                    category_ids[fused.pred_classes.numpy()],
                    np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
                    fused.scores.double().numpy(),
                ).round()
            )
    return Detections.concatenate(parts)


def _split(detections: Detections, image_ids: Sequence, category_ids: np.ndarray) -> Iterator[Instances]:
    """The detections of each image, XYXY, as a model gives them."""
    places = {image_id: i for i, image_id in enumerate(image_ids)}
    index = np.array([places[image_id] for image_id in detections.image_ids.tolist()], dtype=np.int64)
    detections, index = detections[np.argsort(index, kind="stable")], np.sort(index, kind="stable")
    order = np.argsort(category_ids)
    classes = order[np.searchsorted(category_ids[order], detections.category_ids)]
    corners = np.concatenate([detections.boxes[:, :2], detections.boxes[:, :2] + detections.boxes[:, 2:]], axis=1)
    starts = np.searchsorted(index, np.arange(len(image_ids) + 1))
    for start, end in itertools.pairwise(starts):
        yield Instances(
            (0, 0),  # not known here, and not needed
            pred_boxes=Boxes(torch.from_numpy(corners[start:end].astype(np.float32))),
            scores=torch.from_numpy(detections.scores[start:end].astype(np.float32)),
            pred_classes=torch.from_numpy(classes[start:end]),
        )


def _digest_images(images: Sequence[dict]) -> str:
    """A text that is another where images are added, removed, renamed or changed; all processes must call it."""
    names = hashlib.sha256(json.dumps([(image["image_id"], image["relative_path"]) for image in images]).encode())
    if len(set(comm.all_gather(names.hexdigest()))) > 1:
        raise UserError("--input: the machines have different images; give all of them the same.")
    for image in images:
        try:
            status = os.stat(image["file_name"])
        except OSError:
            continue  # it counts as unreadable
        names.update(f"{image['image_id']} {status.st_size} {status.st_mtime_ns} ".encode())
    return names.hexdigest()


def _recipe(model: LoadedModel, images_digest: str) -> dict[str, Any]:
    """All that the results of a model depend on, for its journal."""
    config = describe_config(model.cfg)
    test = {key: value for key, value in config["TEST"].items() if key in ("DETECTIONS_PER_IMAGE", "AUG", "DTYPE")}
    views = test["AUG"]["ENABLED"]
    kept = {
        "MODEL": {key: value for key, value in config["MODEL"].items() if key != "WEIGHTS"},
        "TEST": {**test, "AUG": views, **({"FUSION": config["TEST"]["FUSION"]} if views else {})},
    }
    return {
        **dict(flatten(kept)),
        "MODEL.DEVICE": model.cfg.MODEL.DEVICE,
        "INPUT.SIZE_TEST": model.cfg.INPUT.SIZE_TEST,
        "TEST.IMS_PER_BATCH": find_batch_size(model.cfg),
        "classes": model.classes,
        "weights": _digest_file(model.weights.path),
        "images": images_digest,
    }


def _digest_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
