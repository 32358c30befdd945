"""Format the table of scores that a run prints at its end."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from parking.utils.class_names import shown_name
from parking.utils.text import printable


def format_scores(results: Mapping[str, Any]) -> str:
    """Return the scores of ``Trainer.test`` as text, in percent: overall, then AP75 of each class.

    Args:
        results: {"bbox": {"AP": ..., "AP75-sedan": ...}}, or a dict of these by data set name.
    """
    if "bbox" not in results:
        return "\n\n".join(f"{printable(name)}\n{format_scores(scores)}" for name, scores in results.items())
    scores = results["bbox"]
    overall = {name: value for name, value in scores.items() if "-" not in name}
    per_class = [
        (shown_name(name.partition("-")[2]), value) for name, value in scores.items() if name.startswith("AP75-")
    ]
    head = tabulate([overall.values()], headers=list(overall), tablefmt="simple", floatfmt=".1f")
    # Without disable_numparse a class named 10 or 1e3 would be formatted as a number.
    body = tabulate(per_class, headers=["class", "AP75"], tablefmt="simple", floatfmt=".1f", disable_numparse=[0])
    return f"{head}\n\n{body}"
