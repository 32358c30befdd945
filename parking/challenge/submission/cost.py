"""Measures, on annotated images, how much AP75 is lost when predictions are cut down to a submission."""

import logging
import os
from collections.abc import Mapping

from parking.data.datasets.categories import find_other_names
from parking.data.datasets.file_names import name_key
from parking.data.datasets.json_io import parse_json, read_image_records, read_json_object
from parking.evaluation.scorer import CLASS_METRICS, score_boxes
from parking.evaluation.truth import Truth, read_truth
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)


def read_annotations(annotations: str, *, classes: Mapping[int, str], images: str | None = None) -> Truth:
    """Read the annotated boxes of all images, or only of the images that an inference has read.

    Args:
        annotations: COCO-like json.
        classes: names by category id, for all ids that may occur; if the json has another name, that is a warning.
        images: ``images.json`` of an inference, [{"id", "file_name"}, ...]: only these images count, including images
            without boxes. None: all images of ``annotations`` count.

    Raises:
        UserError: a file cannot be read or is malformed, the two files have no image in common, or an id stands for
            different images in them.
    """
    content = read_json_object(annotations)
    records = read_image_records(content, annotations)
    names = {record["image_id"]: record["file_name"] for record in records}
    seen = names if images is None else _read_image_names(images)
    common = [image_id for image_id in names if image_id in seen]
    if not common:
        raise UserError(f"'{annotations}' has none of the images of '{images}'; give annotations of the same data set.")
    for image_id in common:
        if len({os.path.basename(name_key(name)) for name in (names[image_id], seen[image_id])}) > 1:
            raise UserError(
                f"The image {image_id!r} is '{names[image_id]}' in '{annotations}', but '{seen[image_id]}' in "
                f"'{images}'; give annotations of the same data set (infer.py --annotations uses its ids)."
            )
    for finding in find_other_names(content, classes):
        logger.warning("%s: %s %s.", printable(annotations), finding.where, finding.detail)
    return read_truth(
        content,
        annotations,
        [record for record in records if record["image_id"] in seen],
        listed=names,
        categories={category_id: category_id for category_id in classes},
        may_repair=False,
    )


def compute_ap75(truth: Truth, detections: Detections) -> tuple[float, dict[int, float]]:
    """Compute AP75 in percent; return the mean over the classes, and the AP75 by category id.

    AP75 is nan for a class without annotated boxes. Detections on images that ``truth`` lacks do not count.
    """
    scores = score_boxes(truth, detections)
    per_class = scores.summarize_classes()[:, CLASS_METRICS.index("AP75")]
    return scores.summarize()["AP75"], dict(zip(truth.category_ids, per_class.tolist(), strict=True))


def _read_image_names(images: str) -> dict[int | str, str]:
    """The file names in an ``images.json`` by image id."""
    try:
        return {entry["id"]: str(entry["file_name"]) for entry in parse_json(images)[0]}
    except (KeyError, TypeError) as e:
        raise UserError(f"'{images}' is not the images.json of an inference; give another or none.") from e
