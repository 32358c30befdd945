"""Decide which images of an inference are turned upright by their EXIF orientation."""

import logging
from collections.abc import Mapping, Sequence

from detectron2.utils import comm

from parking.config import CfgNode
from parking.data.checking.findings import KINDS, Finding
from parking.data.datasets.sizes import settle_images
from parking.utils.text import join_some

# A line of the log lists this many file names, and states only the number of the others.
_NUM_EXAMPLES = 3

logger = logging.getLogger(__name__)


def settle_orientations(
    images: Sequence[dict], cfg: CfgNode, stated: Mapping[int | str, tuple[int, int]]
) -> list[dict]:
    """Return ``images`` with three entries added: height and width after reading, and how to turn the image upright.

    Unusual cases are logged. All processes must call this; they get what the main process finds, because copies of the
    files on another machine may have other headers. Deciding once also gives several models the same pictures, whatever
    their configs say.

    Args:
        cfg: only INPUT.EXIF_ORIENTATION is used.
        stated: sizes from annotations, see :func:`~parking.data.datasets.sizes.settle_images`.
    """
    additions, findings = [], []
    if comm.is_main_process():
        additions, findings = settle_images(images, cfg.INPUT.EXIF_ORIENTATION, stated)
        _log(findings)
    additions = comm.all_gather(additions)[0]
    if len(additions) != len(images):
        return list(images)  # machines have different images; check_same_everywhere will report it
    return [{**image, **addition} for image, addition in zip(images, additions, strict=True)]


def _log(findings: Sequence[Finding]) -> None:
    for kind in dict.fromkeys(finding.kind for finding in findings):
        names = [finding.where for finding in findings if finding.kind == kind]
        level = logging.INFO if KINDS[kind].severity == "note" else logging.WARNING
        logger.log(level, "%s: %d (%s)", KINDS[kind].title, len(names), join_some(names, _NUM_EXAMPLES))
