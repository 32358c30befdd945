"""Checks and renaming of tensors that are common to all layouts of weights files."""

from collections.abc import Mapping

from torch import Tensor

from parking.utils.text import printable

# Parts that DataParallel and torch.compile add to the names of tensors.
_WRAPPING_PARTS = ("module", "_orig_mod")


class LayoutError(ValueError):
    """The file is not laid out like a published detector; the message says where."""


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the parts that DataParallel, torch.compile and inference wrappers add to the names of tensors.

    Raises:
        LayoutError: two tensors would get the same name.
    """
    renamed = {
        ".".join(part for part in name.split(".") if part not in _WRAPPING_PARTS): tensor
        for name, tensor in state.items()
    }
    if len(renamed) < len(state):
        raise LayoutError("some of its tensors differ only by a part 'module' or '_orig_mod' of their names")
    # Published models call their list of layers "model". An inference wrapper also calls the whole model "model".
    while renamed and all(name.startswith("model.model.") for name in renamed):
        renamed = {name.removeprefix("model."): tensor for name, tensor in renamed.items()}
    return renamed


def check_not_folded(state: Mapping[str, Tensor]) -> None:
    """Raise a LayoutError if the norms of a model are folded into its convolutions; ``state`` has our names."""
    if (key := "backbone.bottom_up.stem.conv.bias") in state:
        raise LayoutError(explain_folded(key))


def explain_folded(key: str) -> str:
    return (
        f"its norms are folded into the convolutions ({printable(key[:100])}), as after fuse() or an export; give the "
        f"checkpoint as the training wrote it"
    )
