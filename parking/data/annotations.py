"""Which annotations count in training."""

import logging
from collections.abc import Sequence

from parking.utils.class_names import shown_name
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)

# Classes that a warning names.
_NUM_EXAMPLES = 20


def get_training_annotations(dataset_dict: dict) -> list[dict]:
    """The annotations of a dataset dict that are trained on: all but crowds."""
    return [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]


def check_learnable(dataset_dicts: Sequence[dict], class_names: Sequence[str], dataset_names: Sequence[str]) -> None:
    """Log the classes without a box to train on; raise a UserError where no class has one.

    Args:
        dataset_dicts: of all ``dataset_names``, DATASETS.TRAIN.
    """
    present = {a["category_id"] for record in dataset_dicts for a in get_training_annotations(record)}
    if not present:
        num_crowds = sum(len(record.get("annotations", ())) for record in dataset_dicts)
        found = f"only crowds (iscrowd 1, {num_crowds} of them), which are not trained on" if num_crowds else "no boxes"
        remedy = "set iscrowd to 0 where a box is of a single object" if num_crowds else "name annotated data"
        raise UserError(
            f"DATASETS.TRAIN {', '.join(map(printable, dataset_names))}: there is nothing to learn, since its "
            f"{len(dataset_dicts)} images have {found}; {remedy}."
        )
    absent = [shown_name(name) for i, name in enumerate(class_names) if i not in present]
    if absent:
        rest = len(absent) - _NUM_EXAMPLES
        logger.warning(
            "%d of %d classes have no box in DATASETS.TRAIN and will hardly be found: %s",
            len(absent),
            len(class_names),
            ", ".join(absent[:_NUM_EXAMPLES]) + (f" and {rest} more" if rest > 0 else ""),
        )
