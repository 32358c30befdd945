"""Write the result files of an inference on images; needs neither torch nor detectron2."""

import json
import logging
import os
from collections.abc import Mapping, Sequence

from parking.challenge.submission.selection import SubmissionOptions, write_submission
from parking.evaluation.coco_results import write_coco_results
from parking.structures.detections import Detections
from parking.utils.files import explaining_write_errors
from parking.utils.marks import OutputFolder

logger = logging.getLogger(__name__)

#: Names of the files that :func:`write_results` may write.
RESULT_NAMES = ("predictions.json", "images.json", "ids.json", "submission.json")


def write_results(
    detections: Detections,
    *,
    output_dir: str | os.PathLike,
    images: Sequence[dict],
    submission: SubmissionOptions | None = None,
    about_ids: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Write the result files of an inference, each marked as written by this product.

    - ``predictions.json``: COCO results with the data set's own category ids;
    - ``images.json``: a list of {"id", "file_name", "width", "height"} of all images, including those without boxes;
      width and height are those of the picture that boxes refer to, and are absent if they are unknown;
    - ``ids.json``, only if ``about_ids`` is given: where the ids in the other files are from, or that they are made up;
    - ``submission.json``, only if ``submission`` is given: what tools/make_submission.py makes of ``predictions.json``
      with the same options, see :func:`parking.challenge.submission.selection.write_submission`. Otherwise, one that an
      earlier run left is removed, so that nobody hands it in as this run's.

    Args:
        detections: boxes in pixels of the original images.
        output_dir: where the files go; made if needed.
        images: for each image a dict with "image_id", "file_name" and, if known, "width" and "height", as
            ``images.json`` shall state them. Boxes in ``predictions.json`` follow the order of the images; boxes of
            one image keep their order.
        submission: options of ``submission.json``; None: it is not written.
        about_ids: content of ``ids.json``: words by "image_ids" and "category_ids".

    Returns:
        The paths of the written files by "predictions", "images", "ids" and "submission".

    Raises:
        ValueError: a box is on an image that is not among the ``images``.
        UserError: a file would replace one that is not ours, or cannot be written.
    """
    detections = detections.in_order([image["image_id"] for image in images])
    folder = OutputFolder(output_dir)
    paths = {name.removesuffix(".json"): str(folder.root / name) for name in RESULT_NAMES}
    with explaining_write_errors():
        # Remove old files even if new ones will replace them: they must never lie beside another run's predictions.
        was_ours, path = folder.remove("submission.json"), paths["submission"]
        if submission is None and was_ours:
            logger.warning("Removed %s: an earlier run wrote it, and this one writes no submission.", path)
        elif submission is None and os.path.lexists(path):
            logger.warning("%s is not of this run, which writes no submission.", path)
        folder.remove("ids.json")
        write_coco_results(detections, paths["predictions"])
        with folder.open("images.json") as file:
            keys = ("file_name", "width", "height")
            rows = [{"id": image["image_id"], **{key: image[key] for key in keys if key in image}} for image in images]
            # A file name that is not UTF-8 holds lone surrogates; "backslashreplace" writes them as valid JSON escapes.
            file.write(json.dumps(rows, ensure_ascii=False, indent=0).encode(errors="backslashreplace"))
        if about_ids:
            with folder.open("ids.json") as file:
                file.write(json.dumps(about_ids, ensure_ascii=False, indent=1).encode(errors="backslashreplace"))
        else:
            del paths["ids"]
        if submission is None:
            del paths["submission"]
            return paths
        report = write_submission(detections, paths["submission"], submission)
    for line in report.describe():
        logger.info("%s: %s", paths["submission"], line)
    return paths
