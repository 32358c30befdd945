"""What the results of an inference depend on, to know whether earlier ones are still good."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.utils import comm

from parking.checkpoint import Weights
from parking.inference.sinks.journal import find_difference
from parking.utils.errors import UserError


def digest_weights(weights: Weights) -> str:
    """A text that differs if any tensor does; made from what was read, because the file may have changed since."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_images(images: Sequence[dict]) -> str:
    """A text that differs if images are added, removed, renamed or changed; all get the main process's text."""
    digest = hashlib.sha256(_describe_names(images))
    for image in images:
        try:
            status = os.stat(image["file_name"])
        except OSError:
            continue  # it counts as unreadable
        shape = f"{image.get('height')} {image.get('width')} {image.get('exif_orientation', '')}"
        digest.update(f"{status.st_size} {status.st_mtime_ns} {shape} ".encode())
    # Copies of the images on another machine may have other modification times.
    return comm.all_gather(digest.hexdigest())[0]


def check_same_everywhere(
    recipes: Sequence[Mapping[str, Any]], images: Sequence[dict], budget: Sequence[Any] | None
) -> None:
    """Raise a UserError if the processes, which must all call this, were started differently.

    Args:
        recipes: of each model, from :meth:`.image_pipeline.LoadedModel.describe` without the images.
        budget: the hours and TEST.FALLBACKS, where there is a budget.
    """
    own = {
        "--max-hours with TEST.FALLBACKS": budget,
        "number of --weights": len(recipes),
        "images of --input": hashlib.sha256(_describe_names(images)).hexdigest(),
    }
    for i, recipe in enumerate(recipes, start=1):
        # First the device, which decides about other values. GPUs may be numbered differently on each machine.
        device = recipe["MODEL.DEVICE"].partition(":")[0]
        rest = {name: value for name, value in recipe.items() if name != "MODEL.DEVICE"}
        own |= {f"{name} of model {i}": value for name, value in {"MODEL.DEVICE": device, **rest}.items()}
    everywhere = comm.all_gather(json.loads(json.dumps(own)))
    for other in everywhere:
        difference = find_difference(other, everywhere[0])
        if difference:
            raise UserError(
                f"The machines were started differently: {difference} between them; give all of them the same command, "
                f"files and weights."
            )


def _describe_names(images: Sequence[dict]) -> bytes:
    # json.dumps escapes everything that is not ASCII, lone surrogates included, so that it can be encoded.
    return json.dumps([(image["image_id"], image["relative_path"]) for image in images]).encode()
