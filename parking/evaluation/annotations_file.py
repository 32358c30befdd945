"""Annotated boxes beside the ones that an inference finds; needs neither torch nor detectron2."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from parking.data.checking.findings import KINDS, STOP, count_kinds
from parking.data.datasets.categories import read_categories
from parking.data.datasets.file_names import name_key
from parking.data.datasets.json_io import read_image_records, read_json_object
from parking.data.datasets.sizes import settle_images
from parking.evaluation.scorer import BoxScores, score_boxes
from parking.structures.detections import Detections
from parking.utils.class_names import find_classes, shown_name
from parking.utils.errors import UserError
from parking.utils.text import printable

from .truth import read_truth

logger = logging.getLogger(__name__)


class AnnotationsFile:
    """The annotated boxes of those images of an inference that a COCO-like json lists, found by their names.

    Boxes, areas and classes are read and scored as by ``train_net.py --eval-only``, and so are the scores the same.
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
            path: the json. Its ids need not be those of the inference: images and categories are found by name, and
                categories by id where it does not name them.
            images: dicts with ``image_id``, ``relative_path`` and ``file_name``.
            classes: category id by name of the model's classes. Boxes of others count as not found, with a warning.
            policy: DATASETS.POLICY, for what is wrong with annotations.
            exif_orientation: INPUT.EXIF_ORIENTATION.

        Raises:
            UserError: the file cannot be read or is malformed, or lists none of the images.
        """
        content = read_json_object(path)
        self.path = path
        records = read_image_records(content, path)
        image_ids = _match_images(records, images, path)
        if not image_ids:
            raise UserError(f"'{path}' lists none of the images, by their names; are they another data set's?")
        if len(set(image_ids.values())) < len(image_ids):
            raise UserError(f"'{path}' lists one of the images twice, with other folders in front.")
        listed = {record["image_id"] for record in records}
        #: The json's id of each of our images that it lists, and all ids that it has.
        self.image_ids = {own: image_id for image_id, own in image_ids.items()}
        self.known_image_ids = frozenset(listed)
        records = [record for record in records if record["image_id"] in image_ids]
        #: Height and width in pixels by our image id, where the json states them.
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
        #: The json's id of each of our categories that it names, and all ids that it has.
        self.category_ids = {own: category_id for category_id, own in named.items() if own is not None}
        self.known_category_ids = frozenset(named)
        self._truth = read_truth(
            content,
            path,
            records,
            listed=listed,
            class_ids={category_id: i for i, category_id in enumerate(own_ids)},
            image_ids=[image_ids[record["image_id"]] for record in records],
            category_ids=list(own_ids.values()),
            policy=policy,
        )
        self._rows = {image_id: row for row, image_id in enumerate(self._truth.image_ids)}

    def __contains__(self, image_id: int | str) -> bool:
        return image_id in self._rows

    def __len__(self) -> int:
        """Images that are both annotated and among those of the inference."""
        return len(self._rows)

    def boxes_of(self, image_id: int | str) -> Detections:
        """The annotated boxes of an image, with scores of 1; without crowds and classes that the model lacks."""
        truth = self._truth
        found = np.flatnonzero((truth.rows == self._rows.get(image_id, -1)) & ~truth.crowd)
        found = [i for i in found.tolist() if truth.category_ids[truth.classes[i]] is not None]
        ids = [truth.category_ids[k] for k in truth.classes[found].tolist()]
        return Detections.from_columns([image_id] * len(ids), ids, truth.boxes[found], np.ones(len(ids)))

    def score(self, detections: Detections, *, left_out: Collection[int | str] = ()) -> BoxScores:
        """Score the boxes on annotated images.

        Args:
            left_out: ids of images that could not be read; the scores are as if the json did not list them.
        """
        return score_boxes(self._truth.without_images(left_out), detections)


def _match_images(records: Sequence[dict], images: Sequence[dict], path: str) -> dict[int | str, int | str]:
    """Our image id for the id of each record that means one of our images.

    It does where both have the same path, else where one of the two paths is the end of the other: "a.png" may be
    "day/a.png", but "night/a.png" is not.
    """
    by_key = {name_key(image["relative_path"]): image["image_id"] for image in images}
    by_base = defaultdict(list)
    for key in by_key:
        by_base[key.rpartition("/")[2]].append(key)
    matched = {}
    for record in records:
        key = name_key(record["file_name"]).lstrip("/")
        ends = by_base.get(key.rpartition("/")[2], ())
        # The longest is the nearest: of those that are the end of the record's path there is one of each length.
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
    """Our category id for each one of the json; None: the model has no such class."""
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
        logger.warning(
            "%s: the model has no class %s; their boxes count as not found.",
            printable(path),
            ", ".join(unknown),
        )
    category_ids = {category_id: None if name is None else classes[name] for category_id, name in own.items()}
    sources: dict[int, int] = {}
    for category_id, own_id in category_ids.items():
        if own_id is not None and sources.setdefault(own_id, category_id) != category_id:
            shown = f"{sources[own_id]} and {category_id}, '{printable(names[category_id])}',"
            raise UserError(
                f"'{printable(path)}': the categories {shown} are one class of the model, and its results can have the "
                "id of only one; give them one id."
            )
    return category_ids
