"""Run one or several models over images and write the results, as ``infer.py`` does."""

import dataclasses
import gc
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.utils import comm
from torch import nn

from parking.challenge.classes import CLASS_NAMES
from parking.challenge.registration import find_category_ids
from parking.challenge.submission.options import parse_class_floors
from parking.challenge.submission.selection import SubmissionOptions
from parking.checkpoint import Weights, distinct_names
from parking.config import CfgNode
from parking.config.plain import describe_config, flatten
from parking.data.datasets.images import ImageList
from parking.inference.models import choose_inference_classes, find_config_and_weights
from parking.inference.sinks.journal import JOURNAL_NAME, JournalContent, ResultsJournal, remove_journal_folder
from parking.inference.sinks.result_ids import ResultIds, list_ids
from parking.inference.sinks.results import write_results
from parking.modeling import DetectionFusion
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.files import explaining_write_errors, locked, remove_stale_lock
from parking.utils.marks import make_own_folder
from parking.utils.text import printable

from .barrier import PatientBarrier
from .budget import Candidate, TimeBudget, choose_candidate, list_candidates
from .build import build_inference_model
from .digests import check_same_everywhere, digest_images, digest_weights
from .fusing import fuse_results
from .runner import find_batch_size, measure_speed, plan_inference, predict_images, share_plan

logger = logging.getLogger(__name__)


class LoadedModel(NamedTuple):
    """Weights given by ``--weights``, with their config and classes.

    Attributes:
        classes: category id by class name, in the order of the model's outputs.
        weights_digest: see :func:`.digests.digest_weights`.
        are_classes_numbered: whether the category ids are made up (1, 2, 3, ...), because the weights state none.
    """

    cfg: CfgNode
    weights: Weights
    classes: dict[str, int]
    weights_digest: str
    are_classes_numbered: bool = False

    def build(self) -> nn.Module:
        """Return the model in eval mode, ready for inference."""
        return build_inference_model(self.cfg, self.weights, list(self.classes))

    def describe(self, images_digest: str) -> dict[str, Any]:
        """Return everything that the model's results depend on, as JSON values by name: the recipe for its journal."""
        config = dict(flatten(describe_config(self.cfg)))
        groups, keys = ["MODEL."], {"INPUT.SIZE_TEST", "TEST.AUG.ENABLED", "TEST.DETECTIONS_PER_IMAGE", "TEST.DTYPE"}
        if config["TEST.AUG.ENABLED"]:
            # TEST.FUSION says how test-time augmentation fuses the views of an image. Without augmentation, it says
            # only how models are fused, which does not matter here: a journal holds the results of one model.
            groups.append("TEST.FUSION.")
        # Leave out the keys in groups named LOSS, because only training reads them.
        kept = {key: config[key] for key in config if key in keys or key.startswith(tuple(groups))}
        return {
            **{key: value for key, value in kept.items() if key != "MODEL.WEIGHTS" and ".LOSS." not in key},
            "MODEL.DEVICE": self.cfg.MODEL.DEVICE,
            "TEST.IMS_PER_BATCH": find_batch_size(self.cfg),
            # Use a list of pairs, because the order of the classes matters, and dicts are equal whatever their order.
            "classes": [[name, category_id] for name, category_id in self.classes.items()],
            "weights": self.weights_digest,
            # Loading finds each class's outputs in the weights by these names.
            "classes of the weights": self.weights.class_names,
            "images": images_digest,
        }


class InferenceReport(NamedTuple):
    """The results of a run of :func:`run_inference`.

    Attributes:
        detections: of all images, in the order of the images.
        files: paths by "predictions", "images" and, if they were written, "ids" and "submission".
        errors: by image id, in the order of the images, a sentence on why that image could not be read.
    """

    detections: Detections
    files: dict[str, str]
    errors: dict[int | str, str]


def load_models(
    config_file: str | None, weights_files: Sequence[str], opts: list[str], *, default_config: str | os.PathLike
) -> list[LoadedModel]:
    """Load one model for each of ``weights_files``, or the config's weights if there are none.

    All models use ``config_file`` if it is given, else each uses the config that its weights carry; see
    :func:`.models.find_config_and_weights`.

    Raises:
        UserError: a file or a value of the config is wrong, even if only the end of the run needs it, or two models
            have different classes.
    """
    models: list[LoadedModel] = []
    for path in weights_files or [None]:
        cfg, weights = find_config_and_weights(config_file, path, opts, default_config=default_config)
        names, category_ids = choose_inference_classes(cfg, weights)
        are_named_only = names == weights.class_names and not weights.category_ids
        if names == weights.class_names and len(set(names)) < len(names):
            # Number repeated names: from here on classes are looked up by name, and each must keep its own outputs.
            names = distinct_names(names)
            weights = dataclasses.replace(weights, class_names=names)
            logger.warning(f"{printable(weights.path)} have a class name several times: the second is called NAME (2)")
        classes = dict(zip(names, category_ids, strict=True))
        are_numbered = are_named_only and find_category_ids(names) is None
        models.append(LoadedModel(cfg, weights, classes, digest_weights(weights), are_numbered))
        first = models[0]
        if classes != first.classes:
            raise UserError(
                f"Only models of the same classes and category ids can be used together, but --weights "
                f"{first.weights.path} has {list_ids(first.classes)}, and {path} has {list_ids(classes)}."
            )
    return models


def choose_submission(
    cfg: CfgNode, classes: Mapping[str, int], images: ImageList, ids: ResultIds
) -> tuple[SubmissionOptions | None, str]:
    """Return the options of the submission file and "", or None and a sentence that says why no such file is written.

    The sentence is empty as well if nobody would expect a submission.

    Args:
        classes: the run's category ids by class name.
        ids: the ids under which the results are written.

    Raises:
        UserError: TEST.SUBMISSION_CLASS_FLOORS has a wrong class or number.
    """
    if not images.has_ids:
        # Give the reason only if all classes are the challenge's; with other classes nobody expects a submission.
        return None, images.note if set(classes) <= set(CLASS_NAMES) else ""
    test = cfg.TEST
    floors = parse_class_floors(test.SUBMISSION_CLASS_FLOORS, classes, option="TEST.SUBMISSION_CLASS_FLOORS")
    max_bytes, max_per_image = int(test.SUBMISSION_MB * 1e6), test.SUBMISSION_MAX_PER_IMAGE
    if not set(classes.values()) <= set(range(1, len(CLASS_NAMES) + 1)):
        return None, "the classes of these weights are not the challenge's."
    if not ids.are_own:
        return None, "the ids of --annotations are not those of the image list and of the challenge's classes."
    return SubmissionOptions(max_bytes, max_per_image, floors, test.SUBMISSION_SPACING), ""


@contextmanager
def kept_results(output_dir: str, barrier: PatientBarrier) -> Iterator[Path]:
    """Yield the journal's folder; remove the folder once all processes have left the block without an error.

    An interrupted run leaves the folder behind, and the next one continues from it.

    Raises:
        UserError: another run is using the folder, or something that this product did not write has its name.
    """
    busy = f"another infer.py is writing to {output_dir}; wait for it, or give another --output."
    with locked(Path(output_dir, f"{JOURNAL_NAME}-{comm.get_rank():05d}.lock"), busy=busy):
        folder = Path(output_dir, JOURNAL_NAME)
        make_own_folder(folder)
        try:
            yield folder
        except KeyboardInterrupt:
            logger.info("What was found so far is kept in %s: the same command goes on from there.", folder)
            raise
        barrier.wait()  # the journal is needed until the main process has written the results
        if comm.get_local_rank() == 0:
            with explaining_write_errors():
                remove_journal_folder(folder)
            for lock in Path(output_dir).glob(f"{JOURNAL_NAME}-*.lock"):
                remove_stale_lock(lock)
        # Wait for the other machines, which may share the folder: the next run must not begin in the folder while a
        # machine is still clearing it.
        barrier.wait()


def run_inference(
    models: Sequence[LoadedModel],
    images: Sequence[dict],
    *,
    output_dir: str,
    folder: Path,
    barrier: PatientBarrier,
    ids: ResultIds,
    submission: SubmissionOptions | None = None,
    budget: TimeBudget | None = None,
) -> InferenceReport | None:
    """Run all ``models`` over ``images``, fuse their detections if there are several, and write the results.

    All processes must call it. The same call after an interruption continues from the results in ``folder``, and ends
    with exactly the files of an uninterrupted run.

    Args:
        models: from :func:`load_models`.
        images: from :func:`parking.data.datasets.images.list_images`.
        output_dir: where the result files go.
        folder: from :func:`kept_results`.
        ids: the ids that the files use.
        submission: options of ``submission.json``; None: it is not written, and one of an earlier run is removed.
        budget: time limit; if needed, one of TEST.FALLBACKS is applied to keep it. None: the configs are used as they
            are.

    Returns:
        The report on the main process, None on the others.

    Raises:
        UserError: processes were started with different images or models, or memory runs out.
    """
    fallbacks = None if budget is None else [budget.hours, models[0].cfg.TEST.FALLBACKS]
    check_same_everywhere([model.describe("") for model in models], images, fallbacks)
    images_digest = digest_images(images)
    if budget is not None:
        models = _choose_fallbacks(models, images, folder=folder, budget=budget, images_digest=images_digest)
    contents = []
    for i, model in enumerate(models):
        title = "predicting" if len(models) == 1 else f"model {i + 1} of {len(models)}"
        with closing(ResultsJournal(folder / f"model-{i}", model.describe(images_digest))) as journal:
            _predict_missing(model, images, journal, title)
            barrier.wait()
            contents.append(journal.gather())
    if not comm.is_main_process():
        return None
    detections = _join(models[0], contents, images)
    files = write_results(
        ids.translate(detections),
        output_dir=output_dir,
        images=[
            {**image, "image_id": ids.image_ids[image["image_id"]], "file_name": image["relative_path"]}
            for image in images
        ],
        submission=submission,
        about_ids=ids.about,
    )
    errors = {image_id: text for content in contents for image_id, text in content.errors.items()}
    ordered = {image["image_id"]: errors[image["image_id"]] for image in images if image["image_id"] in errors}
    return InferenceReport(detections, files, ordered)


def _predict_missing(model: LoadedModel, images, journal: ResultsJournal, title: str) -> None:
    num_done = sum(image["image_id"] in journal.done for image in images)
    if num_done:
        logger.info("%s: %d of %d images were done before the interruption", title, num_done, len(images))
    if num_done < len(images):
        detector = model.build()
        batches = share_plan(model.cfg, detector, images)
        category_ids = list(model.classes.values())
        predict_images(model.cfg, detector, batches, journal, category_ids=category_ids, title=title)
        del detector
        _free_memory()


def _join(model: LoadedModel, contents: Sequence[JournalContent], images) -> Detections:
    """Return the detections in all images, in the order of the images; detections of several models are fused."""
    image_ids = [image["image_id"] for image in images]
    for content in contents:
        if not content.done >= set(image_ids):
            raise UserError(
                f"The results of {len(set(image_ids) - content.done)} of {len(image_ids)} images are gone from the "
                f"journal, {JOURNAL_NAME} in the output folder: was that removed during the run? Run the same command "
                "again."
            )
    opinions = [content.detections for content in contents]
    if len(opinions) == 1:
        return opinions[0].in_order(image_ids)
    return fuse_results(opinions, DetectionFusion(model.cfg), image_ids=image_ids, classes=model.classes)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        # Free the memory blocks that PyTorch has cached, because the next model may need blocks of other sizes.
        torch.cuda.empty_cache()


def _choose_fallbacks(models, images, *, folder: Path, budget: TimeBudget, images_digest: str) -> list[LoadedModel]:
    def measure(candidate: Candidate) -> float:
        # Return infinity instead of raising: if memory runs out in one process only, the others must not wait for it.
        try:
            return sum(map(measure_one, models, candidate.cfgs))
        except UserError as e:
            logger.warning("--max-hours: %s: %s", candidate.title, e)
            return math.inf

    def measure_one(model: LoadedModel, cfg: CfgNode) -> float:
        detector = model._replace(cfg=cfg).build()
        seconds = measure_speed(cfg, detector, plan_inference(cfg, detector, images))
        del detector
        _free_memory()
        return seconds

    chosen = choose_candidate(
        list(list_candidates([model.cfg for model in models])),
        measure,
        num_images=len(images),
        budget=budget,
        record=folder / "budget.json",
        recipe=[budget.hours, *(model.describe(images_digest) for model in models)],
    )
    return [model._replace(cfg=cfg) for model, cfg in zip(models, chosen.cfgs, strict=True)]
