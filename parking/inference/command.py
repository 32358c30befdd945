"""Run ``infer.py``: from its parsed arguments to the summary that it prints."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from parking.challenge.classes import translate_names
from parking.config import CfgNode
from parking.data.decoding.orientation import IGNORE
from parking.evaluation.annotations_file import AnnotationsFile
from parking.inference.sinks.pictures import FOLDER_NAME, PictureWriter
from parking.inference.sinks.result_ids import choose_result_ids
from parking.inference.sinks.results import RESULT_NAMES
from parking.inference.sources.orientations import settle_orientations
from parking.inference.sources.video import FrameSource, open_source
from parking.utils.files import check_writable
from parking.utils.logs import setup_logging
from parking.utils.marks import OutputFolder
from parking.visualization.fonts import find_font

from .barrier import PatientBarrier
from .budget import TimeBudget
from .detector import ArrayDetector
from .image_pipeline import InferenceReport, LoadedModel, choose_submission, kept_results, load_models, run_inference
from .runner import find_batch_size
from .video_pipeline import predict_video


@dataclass(frozen=True)
class Outcome:
    """What ``infer.py`` tells the user at the end.

    Attributes:
        summary: lines to print.
        files: path of each result file or folder; the keys name what it holds, such as "predictions".
        unreadable: a sentence for each image that could not be read.
        interrupted: whether Ctrl-C stopped the run early.
    """

    summary: list[str]
    files: dict[str, str]
    unreadable: list[str]
    interrupted: bool = False


def infer_images(args: argparse.Namespace, default_config: str | os.PathLike) -> Outcome | None:
    """Find objects in the images that ``args`` name and write the results; return None in all but the main process.

    Args:
        args: the parsed arguments of ``infer.py``; ``images``, an :class:`~parking.data.datasets.images.ImageList`;
            and ``started``, the ``time.monotonic()`` of the start.
        default_config: path of the config to use if neither ``args`` nor the weights have one.

    Raises:
        UserError: something in ``args`` is wrong; raised before any prediction, if it can be known by then.
    """
    setup_logging()
    images = args.images.images
    models = load_models(args.config_file, args.weights, args.opts, default_config=default_config)
    cfg, classes = models[0].cfg, models[0].classes
    output_dir = _make_output_dir(args, cfg)
    truth = None
    if args.annotations:
        how = {"policy": cfg.DATASETS.POLICY, "exif_orientation": cfg.INPUT.EXIF_ORIENTATION}
        truth = AnnotationsFile(args.annotations, images, classes, **how)
    ids = choose_result_ids(args.images, classes, truth, are_classes_numbered=models[0].are_classes_numbered)
    submission, note = choose_submission(cfg, classes, args.images, ids)
    images = settle_orientations(images, cfg, {} if truth is None else truth.sizes)
    pictures = None
    if args.visualize > 0:
        names = _find_display_names(args, classes)
        pictures = PictureWriter(
            output_dir=output_dir, classes=classes, display_names=names, min_score=args.min_score, ground_truth=truth
        )
    OutputFolder(output_dir).check(name for name in RESULT_NAMES if submission or name != "submission.json")
    if pictures:
        pictures.check(images[: args.visualize])
    budget = TimeBudget(args.max_hours, args.started) if args.max_hours else None
    barrier = PatientBarrier()
    with kept_results(output_dir, barrier) as folder:
        report = run_inference(
            models,
            images,
            output_dir=output_dir,
            folder=folder,
            barrier=barrier,
            ids=ids,
            submission=submission,
            budget=budget,
        )
        if report is None:
            return None
        about_ids = [f"{what.replace('_', ' ')}: {text}" for what, text in ids.about.items()]
        notes = [*about_ids, *([f"no submission.json: {note}"] if note else [])]
        return _finish(report, args, images, output_dir, notes, truth, pictures)


def _finish(
    report: InferenceReport, args, images: Sequence[dict], output_dir: str, notes: list[str], truth, pictures
) -> Outcome:
    summary, files = [f"{len(report.detections)} boxes in {len(images) - len(report.errors)} images"], report.files
    if truth is not None:
        found = truth.score(report.detections, left_out=report.errors.keys()).summarize()
        scores = ", ".join(f"{name} {found[name]:.2f}" for name in ("AP", "AP50", "AP75"))
        num_images = len(truth) - sum(image_id in truth for image_id in report.errors)
        summary.append(f"on the {num_images} annotated images: {scores}")
    summary += notes
    drawn = pictures.draw(images[: args.visualize], report.detections) if pictures else None
    if drawn:
        files = {**files, "visualizations": drawn}
        if num_earlier := pictures.count_earlier():
            summary.append(f"{num_earlier} of the pictures in {drawn} are an earlier run's")
    elif Path(output_dir, FOLDER_NAME).exists():
        summary.append(f"the pictures in {output_dir}/{FOLDER_NAME} are an earlier run's")
    return Outcome(summary, files, list(report.errors.values()))


def infer_video(args: argparse.Namespace, source: FrameSource, default_config: str | os.PathLike) -> Outcome:
    """Find objects in the frames of ``source`` and write the results; for the arguments, see :func:`infer_images`."""
    setup_logging()
    models = load_models(args.config_file, args.weights, args.opts, default_config=default_config)
    cfg = models[0].cfg
    if cfg.INPUT.EXIF_ORIENTATION == IGNORE and source.path and os.path.isdir(source.path):
        source.close()
        with open_source(source.path, fps=source.fps, orientation=IGNORE) as as_stored:
            return _predict_frames(args, as_stored, models)
    return _predict_frames(args, source, models)


def _predict_frames(args: argparse.Namespace, source: FrameSource, models: Sequence[LoadedModel]) -> Outcome:
    cfg, classes = models[0].cfg, models[0].classes
    detector = ArrayDetector(
        [model.cfg for model in models],
        # Give all models the classes in the first model's order, because each weights file may have another order.
        [model._replace(classes=classes).build() for model in models],
    )
    report = predict_video(
        # Predict frames of a live source one by one, so that each is written before the next one arrives.
        partial(map, detector) if source.is_live else detector.detect_ahead,
        source,
        output_dir=_make_output_dir(args, cfg),
        batch_size=find_batch_size(cfg),
        classes=classes,
        display_names=_find_display_names(args, classes),
        min_score=args.min_score,
        save_video=not args.no_video,
    )
    summary = [f"{report.num_boxes} boxes in {report.num_frames} frames"]
    if source.num_unreadable > len(source.unreadable):
        summary.append(f"{source.num_unreadable} frames could not be read; the first of them:")
    # Ctrl-C is the usual way to end a live source, so it does not count as an interruption.
    return Outcome(summary, report.files, source.unreadable, report.interrupted and not source.is_live)


def _make_output_dir(args, cfg: CfgNode) -> str:
    output_dir = args.output or str(Path(cfg.OUTPUT_DIR, "inference"))
    check_writable(output_dir, name="--output")
    return output_dir


def _find_display_names(args, classes: Mapping[str, int]) -> list[str] | None:
    if not args.korean:
        return None
    names = translate_names(classes, option="--korean")
    find_font("".join(names))  # raises a UserError if no font has these characters
    return names
