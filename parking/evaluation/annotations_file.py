"""Read the annotations of ``infer.py --annotations FILE`` and score by them; needs neither torch nor detectron2."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from parking.data.checking.findings import KINDS, STOP, count_kinds
from parking.data.datasets.categories import read_categories
from parking.data.datasets.file_names import name_key
from parking.data.datasets.json_io import read_image_records, read_json_object
from parking.data.datasets.sizes import settle_images
from parking.structures.detections import Detections
from parking.utils.class_names import find_classes, shown_name
from parking.utils.errors import UserError
from parking.utils.text import printable

from .scorer import BoxScores, score_boxes
from .truth import read_truth

logger = logging.getLogger(__name__)


class AnnotationsFile:
    """Reads a COCO-like json with boxes annotated on the images of an inference, and scores detections against them.

    Boxes, areas and classes are read and scored as by ``train_net.py --eval-only``, so the scores are equal.
    """

    def __init__(
        self,
        path: str,
        images: Sequence[dict],
        classes: Mapping[str, int],
        *,
        policy: str = "strict",
        exif_orientation: str = "auto",
    ):
        """
        Args:
            path: the json. Its ids may differ from those of the inference: images and categories are matched by name,
                and categories by id if the json does not name them.
            images: dicts with ``image_id``, ``relative_path`` and ``file_name``.
            classes: class name -> category id, for the model's classes. Annotated boxes of any other class count as not
                found; a warning names the class.
            policy: DATASETS.POLICY, which decides about faulty annotations.
            exif_orientation: INPUT.EXIF_ORIENTATION.

        Raises:
            UserError: the file cannot be read or is malformed, or lists none of the images.
        """
        content = read_json_object(path)
        self.path = path
        records = read_image_records(content, path)
        image_ids = _match_images(records, images, path)
        if not image_ids:
            raise UserError(f"'{path}' names none of the images; give the annotations of these images.")
        if len(set(image_ids.values())) < len(image_ids):
            raise UserError(f"'{path}' lists an image twice, with different folders in front of its name.")
        listed = {record["image_id"] for record in records}
        #: Image id of the inference -> image id in the json, for the images in both.
        self.image_ids = {own: image_id for image_id, own in image_ids.items()}
        #: All image ids in the json.
        self.known_image_ids = frozenset(listed)
        records = [record for record in records if record["image_id"] in image_ids]
        #: Image id of the inference -> height and width in pixels, if the json states them.
        self.sizes = {
            image_ids[record["image_id"]]: (record["height"], record["width"])
            for record in records
            if "height" in record
        }
        additions, _ = settle_images(images, exif_orientation, self.sizes)
        found = {image["image_id"]: addition for image, addition in zip(images, additions, strict=True)}
        records = [{**found[image_ids[record["image_id"]]], **record} for record in records]
        own_ids = _match_categories(content, path, classes)
        named = own_ids if content.get("categories") else {}
        #: Category id of the model -> category id in the json, for the categories in both.
        self.category_ids = {own: category_id for category_id, own in named.items() if own is not None}
        #: All category ids in the json.
        self.known_category_ids = frozenset(named)
        self._truth = read_truth(
            content,
            path,
            records,
            listed=listed,
            categories=own_ids,
            image_ids=[image_ids[record["image_id"]] for record in records],
            policy=policy,
        )
        self._rows = {image_id: row for row, image_id in enumerate(self._truth.image_ids)}

    def __contains__(self, image_id: int | str) -> bool:
        return image_id in self._rows

    def __len__(self) -> int:
        """Return the number of images that both the json and the inference have."""
        return len(self._rows)

    def boxes_of(self, image_id: int | str) -> Detections:
        """Return the boxes annotated on an image, except crowds and classes that the model lacks, with scores of 1."""
        truth = self._truth
        found = np.flatnonzero((truth.rows == self._rows.get(image_id, -1)) & ~truth.crowd)
        found = [i for i in found.tolist() if truth.category_ids[truth.classes[i]] is not None]
        ids = [truth.category_ids[k] for k in truth.classes[found].tolist()]
        return Detections.from_columns([image_id] * len(ids), ids, truth.boxes[found], np.ones(len(ids)))

    def score(self, detections: Detections, *, left_out: Collection[int | str] = ()) -> BoxScores:
        """Score the detections on images that the json lists; detections on other images do not count.

        Args:
            left_out: ids of images that could not be read; they are treated as if the json did not list them.
        """
        return score_boxes(self._truth.without_images(left_out), detections)


def _match_images(records: Sequence[dict], images: Sequence[dict], path: str) -> dict[int | str, int | str]:
    """Return {image id in the json: image id of the inference} for the images in both.

    Two images are the same if their paths are equal, or else if one path is the end of the other: "a.png" may be
    "day/a.png", but "night/a.png" is a different image.
    """
    by_key = {name_key(image["relative_path"]): image["image_id"] for image in images}
    by_base = defaultdict(list)
    for key in by_key:
        by_base[key.rpartition("/")[2]].append(key)
    matched = {}
    for record in records:
        key = name_key(record["file_name"]).lstrip("/")
        ends = by_base.get(key.rpartition("/")[2], ())
        # If the paths of several images are ends of the record's path, the longest of them is the best match; no two
        # have the same length.
        fitting = sorted((own for own in ends if f"/{key}".endswith(f"/{own}")), key=len)[-1:]
        fitting = fitting or [own for own in ends if own.endswith(f"/{key}")]
        if len(fitting) > 1:
            raise UserError(
                f"'{path}': '{record['file_name']}' may be '{fitting[0]}' or '{fitting[1]}'; name it with its folder."
            )
        if fitting:
            matched[record["image_id"]] = by_key[fitting[0]]
    return matched


def _match_categories(content: dict, path: str, classes: Mapping[str, int]) -> dict[int, int | None]:
    """Return {category id in the json: category id of the model, or None if the model has no such class}."""
    if not content.get("categories"):
        return {category_id: category_id for category_id in classes.values()}
    names, findings = read_categories(content)
    for finding in findings:
        if KINDS[finding.kind].strict == STOP:
            raise UserError(f"'{path}' {finding.detail}.")
    if findings:
        counts = [f"{count} {KINDS[kind].title}" for kind, count in count_kinds(findings).items()]
        logger.warning("%s: %s (see tools/check_data.py).", printable(path), "; ".join(counts))
    own = dict(zip(names, find_classes(names.values(), classes), strict=True))
    unknown = sorted(shown_name(names[category_id]) for category_id, name in own.items() if name is None)
    if unknown:
        text = "%s: the model has no class %s; their boxes count as not found."
        logger.warning(text, printable(path), ", ".join(unknown))
    category_ids = {category_id: None if name is None else classes[name] for category_id, name in own.items()}
    sources: dict[int, int] = {}
    for category_id, own_id in category_ids.items():
        if own_id is not None and sources.setdefault(own_id, category_id) != category_id:
            shown = f"{sources[own_id]} and {category_id} ('{printable(names[category_id])}')"
            raise UserError(
                f"'{printable(path)}': the categories {shown} are the same class of the model; give both the same id."
            )
    return category_ids
