"""Writing what a model finds in images; needs neither torch nor detectron2."""

import json
import logging
import os
from collections.abc import Mapping, Sequence

from parking.challenge.submission.options import SubmissionOptions
from parking.challenge.submission.selection import write_submission
from parking.evaluation.coco_results import write_coco_results
from parking.structures.detections import Detections
from parking.utils.files import explaining_write_errors
from parking.utils.marks import OutputFolder

logger = logging.getLogger(__name__)

#: What :func:`write_results` may write.
RESULT_NAMES = ("predictions.json", "images.json", "ids.json", "submission.json")


def write_results(
    detections: Detections,
    *,
    output_dir: str | os.PathLike,
    images: Sequence[dict],
    submission: SubmissionOptions | None = None,
    about_ids: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write the files that an inference leaves behind, all of them marked as ours.

    - ``predictions.json``: COCO results with the data set's own category ids;
    - ``images.json``: a list of {"id", "file_name", "width", "height"} of all images, also of those without boxes;
      sizes are those of the pictures that boxes refer to, and are left out where they are unknown;
    - ``ids.json``, if there is something to tell: where the ids of the other files are from, or that they are made up;
    - ``submission.json``, if asked for, see :func:`parking.challenge.submission.selection.write_submission`: what
      tools/make_submission.py makes of ``predictions.json`` with the same options. If not asked for, a submission that
      an earlier run left is removed, lest it be handed in for this run's.

    Args:
        detections: boxes in pixels of the original images.
        output_dir: where the files go; made if needed.
        images: one dict with "image_id", "file_name" and, where known, "width" and "height" (as they shall stand in
            ``images.json``) per image; their order becomes that of the boxes in ``predictions.json``, those of one
            image stay as they are.
        submission: how to write ``submission.json``; None: not at all.
        about_ids: sentences by "image_ids" and "category_ids".

    Returns:
        The paths of what was written: "predictions", "images", "ids", "submission".

    Raises:
        ValueError: a box is on an image that is not among the ``images``.
        UserError: a file would replace one that is not ours, or cannot be written.
    """
    detections = detections.in_order([image["image_id"] for image in images])
    folder = OutputFolder(output_dir)
    paths = {name.removesuffix(".json"): str(folder.root / name) for name in RESULT_NAMES}
    with explaining_write_errors():
        # Remove old files even if new ones follow: until then they would lie beside predictions of another run.
        _remove(folder, "submission.json", warn=submission is None)
        folder.remove("ids.json")
        write_coco_results(detections, paths["predictions"])
        with folder.open("images.json") as file:
            keys = ("file_name", "width", "height")
            rows = [{"id": image["image_id"], **{key: image[key] for key in keys if key in image}} for image in images]
            # A name that is not UTF-8 holds lone surrogates; Python's backslash escape of one is also JSON's.
            file.write(json.dumps(rows, ensure_ascii=False, indent=0).encode(errors="backslashreplace"))
        if about_ids:
            with folder.open("ids.json") as file:
                file.write(json.dumps(about_ids, ensure_ascii=False, indent=1).encode(errors="backslashreplace"))
        else:
            del paths["ids"]
        if submission is None:
            del paths["submission"]
            return paths
        report = write_submission(detections, paths["submission"], **submission._asdict())
    first, *more = report.describe()
    logger.info("%s: %s", paths["submission"], first)
    for line in more:
        logger.info("%s", line)
    return paths


def _remove(folder: OutputFolder, name: str, *, warn: bool) -> None:
    path = folder.root / name
    if folder.remove(name):
        if warn:
            logger.warning("Removed %s: an earlier run wrote it, and this one writes none.", path)
    elif warn and os.path.lexists(path):
        logger.warning("%s is not of this run, which writes none.", path)
