"""Which images of an inference are turned upright."""

import logging
from collections.abc import Mapping, Sequence

from detectron2.utils import comm

from parking.config import CfgNode
from parking.data.checking.findings import KINDS, Finding
from parking.data.datasets.sizes import settle_images
from parking.utils.text import join_some

# Number of file names in a line of the log, which counts the rest.
_NUM_EXAMPLES = 3

logger = logging.getLogger(__name__)


def settle_orientations(
    images: Sequence[dict], cfg: CfgNode, stated: Mapping[int | str, tuple[int, int]]
) -> list[dict]:
    """``images`` with the sizes at which they will be read, and whether they are turned; logs unusual cases.

    All processes must call this, and get what the main one finds: another machine's copies may have other headers.
    So several models see the same pictures, whatever their configs say.

    Args:
        cfg: INPUT.EXIF_ORIENTATION is read.
        stated: see :func:`~parking.data.datasets.sizes.settle_images`.
    """
    additions, findings = [], []
    if comm.is_main_process():
        additions, findings = settle_images(images, cfg.INPUT.EXIF_ORIENTATION, stated)
        _log(findings)
    additions = comm.all_gather(additions)[0]
    if len(additions) != len(images):
        return list(images)  # machines have different images; the comparison of their recipes says so
    return [{**image, **addition} for image, addition in zip(images, additions, strict=True)]


def _log(findings: Sequence[Finding]) -> None:
    for kind in dict.fromkeys(finding.kind for finding in findings):
        names = [finding.where for finding in findings if finding.kind == kind]
        level = logging.INFO if KINDS[kind].severity == "note" else logging.WARNING
        logger.log(level, "%s: %d (%s)", KINDS[kind].title, len(names), join_some(names, _NUM_EXAMPLES))
