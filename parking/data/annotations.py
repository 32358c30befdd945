"""Choose the annotations that are trained on, and check that there are any."""

import logging
from collections.abc import Sequence

from parking.utils.class_names import shown_name
from parking.utils.errors import UserError
from parking.utils.text import join_some

logger = logging.getLogger(__name__)

# A warning names up to this many classes.
_NUM_EXAMPLES = 20


def get_training_annotations(dataset_dict: dict) -> list[dict]:
    """Return the annotations of a dataset dict that are trained on: all except crowds."""
    return [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]


def check_learnable(dataset_dicts: Sequence[dict], class_names: Sequence[str], dataset_names: Sequence[str]) -> None:
    """Log the classes without a box to train on; raise a UserError if all classes are without one.

    Args:
        dataset_dicts: the images of all ``dataset_names`` together.
        dataset_names: DATASETS.TRAIN.
    """
    present = {a["category_id"] for record in dataset_dicts for a in get_training_annotations(record)}
    if not present:
        num_crowds = sum(len(record.get("annotations", ())) for record in dataset_dicts)
        found = f"only crowds (iscrowd 1, {num_crowds} of them), which are not trained on" if num_crowds else "no boxes"
        remedy = "set iscrowd to 0 where a box is of a single object" if num_crowds else "name annotated data"
        raise UserError(
            f"DATASETS.TRAIN {join_some(dataset_names, len(dataset_names))}: there is nothing to learn, because its "
            f"{len(dataset_dicts)} images have {found}; {remedy}."
        )
    absent = [name for i, name in enumerate(class_names) if i not in present]
    if absent:
        logger.warning(
            f"{len(absent)} of {len(class_names)} classes have no box in DATASETS.TRAIN and will hardly be found: "
            f"{join_some(absent, _NUM_EXAMPLES, shown_name)}"
        )
