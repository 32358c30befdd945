"""Load COCO-format jsons into detectron2's dataset dicts, and register the data sets of the config."""

import functools
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm

from parking.data.checking.findings import KINDS, Finding, list_counts, stop_if_needed
from parking.data.checking.inspection import Inspection, inspect_content
from parking.data.datasets.categories import collect_categories, settle_categories
from parking.data.datasets.colors import distinct_colors
from parking.data.datasets.columns import Columns
from parking.data.datasets.file_names import index_folder
from parking.data.datasets.json_io import paused_gc, read_json, read_json_object
from parking.data.datasets.sizes import read_headers
from parking.data.decoding.orientation import AUTO
from parking.utils.class_names import same_classes, shown_name
from parking.utils.constants import PARKING_DATASETS
from parking.utils.errors import UserError
from parking.utils.text import join_some, printable

logger = logging.getLogger(__name__)

# An error names up to this many classes.
_NUM_NAMED = 20


def load_columns(
    json_file: str,
    image_root: str,
    categories: Mapping[int, str],
    *,
    with_annotations: bool = True,
    policy: str = "strict",
    exif_orientation: str = AUTO,
    allow_outside: bool = False,
    known: Sequence[Finding] = (),
) -> Columns:
    """Load a COCO-like json, apply ``policy`` to what is wrong with it, and log the findings in the main process.

    No image is decoded. Headers are read once: of all images if ``exif_orientation`` is "auto", else of those whose
    size the json lacks.

    Args:
        categories: the class names by category id, in the order of the classes; other ids are findings.
        with_annotations: False if the json is a list of images only.
        policy: "strict" or "repair"; the table in ``datasets/README.md`` says what each does.
        exif_orientation: INPUT.EXIF_ORIENTATION.
        allow_outside: DATASETS.ALLOW_OUTSIDE.
        known: findings about the categories, which are logged together with the new ones.

    Raises:
        UserError: names the json and the first finding that stops.
    """
    content, findings = read_json(json_file)
    stop_if_needed(json_file, findings, policy)
    inspection = inspect_content(
        content,
        categories,
        index_folder(image_root, allow_outside=allow_outside),
        read_headers=read_headers,
        policy=policy,
        with_annotations=with_annotations,
        exif_orientation=exif_orientation,
    )
    findings += [*known, *inspection.findings]
    stop_if_needed(json_file, findings, policy)
    if not len(inspection.columns):
        raise UserError(
            f"'{json_file}': no image in '{image_root}' can be used; the first finding is that {findings[0].where} "
            f"{findings[0].detail}; check that the folder belongs to the json."
        )
    if comm.is_main_process():
        _log_findings(json_file, findings, inspection, policy)
    return inspection.columns


def to_dicts(columns: Columns, *, with_annotations: bool = True) -> list[dict]:
    """Make new dataset dicts, which the caller may change, in detectron2's standard format.

    Returns:
        One dict per image: ``file_name`` (path), ``image_id`` (as in the json), ``height``, ``width``,
        ``exif_orientation`` ("apply" or "ignore") unless "auto" found that the picture is stored upright, and, if
        ``with_annotations``, ``annotations``: ``bbox`` (floats, XYWH_ABS), ``bbox_mode``, ``category_id``
        (contiguous), ``iscrowd`` (0 or 1), and ``area`` (of a mask) if the json has it.
    """
    with paused_gc():
        values = (columns.file_names, columns.image_ids, columns.heights, columns.widths)
        dicts = [
            {"file_name": file_name, "image_id": image_id, "height": height, "width": width}
            for file_name, image_id, height, width in zip(*values, strict=True)
        ]
        for record, orientation in zip(dicts, columns.exif_orientations, strict=True):
            if orientation:
                record["exif_orientation"] = orientation
        if with_annotations:
            annotations, starts = _make_annotations(columns), columns.starts.tolist()
            for record, start, end in zip(dicts, starts[:-1], starts[1:], strict=True):
                record["annotations"] = annotations[start:end]
    return dicts


def _make_annotations(columns: Columns) -> list[dict]:
    mode = BoxMode.XYWH_ABS
    values = (columns.boxes.tolist(), columns.classes.tolist(), columns.crowd.astype(int).tolist())
    annotations = [
        {"bbox": box, "bbox_mode": mode, "category_id": category, "iscrowd": crowd}
        for box, category, crowd in zip(*values, strict=True)
    ]
    for i in np.flatnonzero(~np.isnan(columns.areas)).tolist():
        annotations[i]["area"] = float(columns.areas[i])
    return annotations


def load_once(load: Callable[[], Columns], *, with_annotations: bool = True) -> Callable[[], list[dict]]:
    """Return a function that calls ``load`` at its first call, and returns new dataset dicts at each call.

    Between the calls, only the columns are kept, because worker processes would copy the memory of dicts as soon as
    they use them: Python counts references in the same memory.
    """
    get_columns = functools.cache(load)
    return lambda: to_dicts(get_columns(), with_annotations=with_annotations)


def register_coco_datasets(
    entries: Iterable, *, reserved_names: Collection[str] = (), policy: str = "strict", **options
) -> None:
    """Register every ``[name, json file, image folder]`` of ``DATASETS.COCO``.

    The categories of the json files are read now, everything else when the data set is first loaded. An entry that is
    registered again is read again.

    Args:
        reserved_names: names that no entry may have.
        policy, options: arguments of :func:`load_columns`.

    Raises:
        UserError: an entry is malformed, a json or folder is missing, two entries have different classes, or the name
            is taken by another data set.
    """
    entries = [_check_entry(entry) for entry in entries]
    settled = settle_categories([collect_categories(read_json_object(json_file)) for _, json_file, _ in entries])
    first_name, first_classes = None, None
    for (name, json_file, image_root), (categories, findings) in zip(entries, settled, strict=True):
        if name in reserved_names or (name in DatasetCatalog and _get_source(name) != (json_file, image_root)):
            raise UserError(f"DATASETS.COCO: the name '{name}' belongs to another data set; choose a different one.")
        stop_if_needed(json_file, findings, policy)
        if not os.path.isdir(image_root):
            raise UserError(f"DATASETS.COCO: the image folder '{image_root}' of '{name}' does not exist.")
        classes = list(categories.values())
        if first_classes is None:
            first_name, first_classes = name, classes
        elif not same_classes(classes, first_classes):
            raise UserError(
                f"DATASETS.COCO: '{first_name}' and '{name}' have different classes "
                f"({join_some(first_classes, _NUM_NAMED, shown_name)} against "
                f"{join_some(classes, _NUM_NAMED, shown_name)}); their json files must list the same 'categories'."
            )
        class_ids = {category_id: i for i, category_id in enumerate(categories)}
        register_dataset(
            name,
            load_once(
                partial(load_columns, json_file, image_root, categories, known=findings, policy=policy, **options)
            ),
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=classes,
            thing_colors=distinct_colors(len(classes)),
            thing_dataset_id_to_contiguous_id=class_ids,
        )


def register_dataset(name: str, load: Callable[[], list[dict]], **metadata) -> None:
    """Register ``load`` and ``metadata`` under ``name`` with detectron2, replacing an earlier registration."""
    # Remove the old entries first, because both catalogs refuse to replace an entry.
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)


def original_category_ids(metadata: Metadata) -> list[int]:
    """Return the ids that the classes of a registered data set have in its json, in order of ``thing_classes``."""
    contiguous_ids = metadata.get("thing_dataset_id_to_contiguous_id", None)
    if contiguous_ids is None:
        return list(range(len(metadata.thing_classes)))
    return sorted(contiguous_ids, key=contiguous_ids.get)


def check_datasets(names: Sequence[str]) -> None:
    """Raise a UserError unless all ``names`` are registered and have the same classes."""
    for name in names:
        if name not in DatasetCatalog:
            raise UserError(
                f"The data set '{name}' in DATASETS.TRAIN or DATASETS.TEST is unknown; known are "
                f"{', '.join(PARKING_DATASETS)} and what DATASETS.COCO lists as [name, json file, image folder]."
            )
    classes = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    for name in names[1:]:
        if classes[name] != classes[names[0]]:
            raise UserError(f"The data sets '{names[0]}' and '{name}' have different classes; use them separately.")


def _check_entry(entry):
    if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(isinstance(x, str) and x for x in entry):
        raise UserError(f"DATASETS.COCO: {entry!r} is not of the form [name, json file, image folder].")
    return entry


def _get_source(name):
    metadata = MetadataCatalog.get(name)
    return metadata.get("json_file", None), metadata.get("image_root", None)


def _log_findings(json_file: str, findings: Sequence[Finding], inspection: Inspection, policy: str) -> None:
    lines = list_counts(findings, policy)
    if not lines:
        return
    if inspection.num_lost_boxes:
        lines.append(f"{inspection.num_lost_boxes:8}  annotations of the images that are left out: left out")
    only_notes = all(KINDS[finding.kind].severity == "note" for finding in findings)
    text = f"Found in {printable(json_file)} (DATASETS.POLICY {policy}; see tools/check_data.py):\n" + "\n".join(lines)
    logger.log(logging.INFO if only_notes else logging.WARNING, text)
