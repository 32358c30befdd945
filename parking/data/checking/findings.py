"""The table of what can be wrong with a data set and what is done about it; needs neither torch nor detectron2.

The loader, ``tools/check_data.py`` and ``datasets/README.md`` all follow this table.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from parking.utils.errors import UserError

#: What the loader does about a finding. STOP: end with an error. LEAVE_OUT: leave out the image or annotation, and
#: count it. MEND: mend the image or annotation, and count it. KEEP: use the image or annotation as it is.
STOP, LEAVE_OUT, MEND, KEEP = "stop", "leave out", "mend", "keep"
_DONE = {LEAVE_OUT: "left out", MEND: "mended", KEEP: "kept"}


class Kind(NamedTuple):
    """A kind of :class:`Finding`, with what the loader does about it.

    Attributes:
        title: a plural noun phrase for tables.
        severity: "error" (``check_data.py`` ends with exit code 1), "warning" or "note".
        strict, repair: what the loader does under each DATASETS.POLICY.
    """

    title: str
    severity: str
    strict: str
    repair: str

    def action(self, policy: str) -> str:
        """Return what the loader does about a finding of this kind under ``policy``, "strict" or "repair"."""
        return {"strict": self.strict, "repair": self.repair}[policy]

    def is_left_out(self, policy: str) -> bool:
        """Return whether an image or annotation with a finding of this kind is not used under ``policy``."""
        return self.action(policy) not in (KEEP, MEND)


class Finding(NamedTuple):
    """One thing that is wrong with a data set.

    Attributes:
        kind: a key of ``KINDS``.
        where: the subject of a sentence: the image's file name, or "annotation 17".
        detail: the rest of that sentence, such as "has the bbox [0, 0, -1, 5]".
    """

    kind: str
    where: str
    detail: str = ""


KINDS = {
    # Findings about the json file.
    "json_unreadable": Kind("json files missing, not UTF-8, cut off or not JSON", "error", STOP, STOP),
    "json_bom": Kind("json files that begin with a byte order mark", "warning", MEND, MEND),
    "json_duplicate_key": Kind("json objects with the same key twice", "error", STOP, STOP),
    "json_structure": Kind("json entries of a wrong type or without a needed key", "error", STOP, STOP),
    "json_nan": Kind("json files with NaN or Infinity", "warning", KEEP, KEEP),
    # Findings about the images that the json lists.
    "image_id_twice": Kind("image ids that occur twice", "error", STOP, STOP),
    "file_name_twice": Kind("images listed again under another id", "error", STOP, LEAVE_OUT),
    "name_ambiguous": Kind("file names that differ only in case or Unicode form", "error", STOP, STOP),
    "image_missing": Kind("images listed but not in the folder", "error", STOP, LEAVE_OUT),
    "image_outside": Kind("images whose name leads out of the image folder", "error", STOP, LEAVE_OUT),
    "image_unlisted": Kind("image files that the json does not list", "warning", KEEP, KEEP),
    "image_without_boxes": Kind("images without boxes", "note", KEEP, KEEP),
    # Findings about the content of image files.
    "image_empty": Kind("image files of zero bytes", "error", STOP, LEAVE_OUT),
    "image_not_image": Kind("files that are not images", "error", STOP, LEAVE_OUT),
    "image_unsupported": Kind("images of a kind that is not read, such as HEIC", "error", STOP, LEAVE_OUT),
    "image_truncated": Kind("image files that are cut off", "error", STOP, LEAVE_OUT),
    "image_too_large": Kind("image files with more pixels or bytes than allowed", "error", STOP, LEAVE_OUT),
    "image_unreadable": Kind("image files that are damaged or cannot be opened", "error", STOP, LEAVE_OUT),
    "size_differs": Kind("images of another size than the json says", "error", STOP, LEAVE_OUT),
    "exif_applied": Kind("images that EXIF turns upright", "note", KEEP, KEEP),
    "exif_ignored": Kind("images used as stored, since the json states the size before EXIF", "note", KEEP, KEEP),
    "exif_ambiguous": Kind(
        "images that EXIF would turn, whose size in the json fits either way", "warning", KEEP, KEEP
    ),
    "several_pictures": Kind("image files with several frames or pages; the first is used", "warning", KEEP, KEEP),
    "not_8bit_rgb": Kind("gray, 16-bit, palette, CMYK or alpha images, read as 8-bit RGB", "note", KEEP, KEEP),
    "same_picture": Kind("pictures that occur more than once", "warning", KEEP, KEEP),
    # Findings about the json's categories.
    "class_name_twice": Kind("class names that two categories with annotations have", "error", STOP, STOP),
    "category_left_out": Kind("unused categories that group others or repeat a name", "warning", LEAVE_OUT, LEAVE_OUT),
    "class_name_number": Kind("class names that are numbers, used as texts", "warning", MEND, MEND),
    "class_name_unclear": Kind(
        "class names that are empty or compared without hidden characters", "warning", KEEP, KEEP
    ),
    "class_name_differs": Kind(
        "jsons that spell class names unlike the first json, which decides", "warning", MEND, MEND
    ),
    "class_name_other": Kind("categories used under the challenge's names, not the json's", "warning", KEEP, KEEP),
    # Findings about the json's annotations.
    "annotation_structure": Kind("annotations of a wrong type or without a needed key", "error", STOP, LEAVE_OUT),
    "annotation_id_twice": Kind("annotation ids that occur twice", "warning", KEEP, KEEP),
    "annotation_without_image": Kind("annotations of an image that is not listed", "error", STOP, LEAVE_OUT),
    "category_unknown": Kind("annotations of an unknown category", "error", STOP, LEAVE_OUT),
    "bbox_missing": Kind("annotations without a bbox", "error", STOP, LEAVE_OUT),
    "bbox_not_finite": Kind("boxes that are NaN or infinite", "error", STOP, LEAVE_OUT),
    "bbox_empty": Kind("boxes of zero or negative size", "error", STOP, LEAVE_OUT),
    "bbox_outside": Kind("boxes outside the image", "error", STOP, LEAVE_OUT),
    "bbox_partly_outside": Kind("boxes partly outside the image, clipped to it", "warning", MEND, MEND),
    "bbox_tiny": Kind("boxes narrower or lower than 2 pixels", "warning", KEEP, KEEP),
    "bbox_whole_image": Kind("boxes of 95 % of the image or more", "warning", KEEP, KEEP),
    "bbox_rotated": Kind("annotations with a rotation, whose box is used as if it were upright", "warning", KEEP, KEEP),
    "annotation_ignored": Kind("annotations with an ignore flag, used like any other", "warning", KEEP, KEEP),
    "area_impossible": Kind("annotations with an impossible area, replaced by width x height", "warning", MEND, MEND),
    "annotation_twice": Kind("annotations that repeat another", "warning", KEEP, LEAVE_OUT),
    "crowd": Kind("crowd annotations, which are not trained on", "note", KEEP, KEEP),
    # Findings about the data set as a whole.
    "nothing_to_learn": Kind("data sets without a box to learn from", "error", KEEP, KEEP),
    "mostly_crowds": Kind("data sets in which at least half of the boxes are crowds", "warning", KEEP, KEEP),
    "class_without_boxes": Kind("classes without a box", "warning", KEEP, KEEP),
    "boxes_look_xyxy": Kind("data sets whose boxes look like x0, y0, x1, y1", "error", STOP, STOP),
    "boxes_look_upright": Kind(
        "data sets with sizes before EXIF, but boxes that look turned by it", "error", STOP, STOP
    ),
    "boxes_look_normalised": Kind("data sets whose boxes look divided by the image's size", "error", STOP, STOP),
    "neighbours_across_split": Kind("frames with a near neighbour across the split", "warning", KEEP, KEEP),
}


def count_kinds(findings: Iterable[Finding]) -> dict[str, int]:
    """Count the findings of each kind, in the order of ``KINDS``."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def list_counts(findings: Iterable[Finding], policy: str) -> list[str]:
    """Return a line for each kind that occurs: how often, its title, and what was done under ``policy``."""
    counts = count_kinds(findings)
    return [f"{count:8}  {KINDS[kind].title}: {_DONE[KINDS[kind].action(policy)]}" for kind, count in counts.items()]


def stop_if_needed(json_file: str, findings: Sequence[Finding], policy: str, *, may_repair: bool = True) -> None:
    """Raise a UserError that names the json and the first reason, if the loader must stop under ``policy``.

    Args:
        may_repair: whether the user can choose another policy.
    """
    stopping = [finding for finding in findings if KINDS[finding.kind].action(policy) == STOP]
    if not stopping:
        return
    # If all boxes share a mistake, name it first, because it explains the other findings.
    first = min(stopping, key=lambda finding: not finding.kind.startswith("boxes_look"))
    where = f"'{json_file}'" if first.where in (json_file, "the json") else f"'{json_file}': {first.where}"
    rest = len(stopping) - 1
    message = f"{where} {first.detail}" + (f" (and {rest} more)." if rest else ".")
    if may_repair and all(KINDS[finding.kind].repair != STOP for finding in stopping):
        message += " DATASETS.POLICY repair would leave them out and count them; tools/check_data.py lists all."
    elif rest:
        message += " tools/check_data.py lists all."
    raise UserError(message)
