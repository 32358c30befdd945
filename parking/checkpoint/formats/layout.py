"""What all layouts of tensors in weights files have in common."""

from collections.abc import Mapping

from torch import Tensor

from parking.utils.text import printable

# Parts that wrappers for several processes and torch.compile add to names.
_WRAPPING_PARTS = ("module", "_orig_mod")


class LayoutError(ValueError):
    """The file is not laid out like a published detector; the message says where."""


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that they have without DataParallel, torch.compile or an inference wrapper.

    Raises:
        LayoutError: two tensors would have one name.
    """
    renamed = {
        ".".join(part for part in name.split(".") if part not in _WRAPPING_PARTS): tensor
        for name, tensor in state.items()
    }
    if len(renamed) < len(state):
        raise LayoutError("some of its tensors differ only by a part 'module' or '_orig_mod' of their names")
    # Inference wrappers keep the model as "model", and published models keep their layers as "model", too.
    while renamed and all(name.startswith("model.model.") for name in renamed):
        renamed = {name.removeprefix("model."): tensor for name, tensor in renamed.items()}
    return renamed


def check_not_folded(state: Mapping[str, Tensor]) -> None:
    """Raise a LayoutError if the norms of a model with our names are folded into its convolutions."""
    if (key := "backbone.bottom_up.stem.conv.bias") in state:
        raise LayoutError(explain_folded(key))


def explain_folded(key: str) -> str:
    return (
        f"its norms are folded into the convolutions ({printable(key[:100])}), as after fuse() or an export; give the "
        f"checkpoint as the training wrote it"
    )
