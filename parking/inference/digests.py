"""Digests of weights and images: results of an interrupted inference are used again only if they still match."""

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
    """Return a digest of the weights, a text that changes if any tensor changes.

    The tensors are digested as they were read, not the file, which may have changed since.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def digest_images(images: Sequence[dict]) -> str:
    """Return a text that changes if images are added, removed, renamed or changed; all processes get the same text."""
    digest = hashlib.sha256(_describe_names(images))
    for image in images:
        try:
            status = os.stat(image["file_name"])
        except OSError:
            continue  # the image will be reported as unreadable
        shape = f"{image.get('height')} {image.get('width')} {image.get('exif_orientation', '')}"
        digest.update(f"{status.st_size} {status.st_mtime_ns} {shape} ".encode())
    # Use the main process's digest everywhere: copies of images on other machines may have other modification times.
    return comm.all_gather(digest.hexdigest())[0]


def check_same_everywhere(
    recipes: Sequence[Mapping[str, Any]], images: Sequence[dict], budget: Sequence[Any] | None
) -> None:
    """Raise a UserError if processes were started with different models, images or budgets; all processes must call it.

    Args:
        recipes: what :meth:`.image_pipeline.LoadedModel.describe` returns for each model, without a digest of images.
        budget: the hours and TEST.FALLBACKS; None if there is no time limit.
    """
    own = {
        "--max-hours with TEST.FALLBACKS": budget,
        "number of --weights": len(recipes),
        "images of --input": hashlib.sha256(_describe_names(images)).hexdigest(),
    }
    for i, recipe in enumerate(recipes, start=1):
        # The message names the first difference, so put the device first: TEST.DTYPE and other values follow from it.
        # The index of the device is dropped, because machines may number their GPUs differently.
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
    # json.dumps escapes all characters beyond ASCII. Without this, encode() would fail on the lone surrogates in file
    # names that are not UTF-8.
    return json.dumps([(image["image_id"], image["relative_path"]) for image in images]).encode()
