"""Which annotations count in training."""


def get_training_annotations(dataset_dict: dict) -> list[dict]:
    """The annotations of a dataset dict that are trained on: all but crowds."""
    return [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
