"""Build models, and prepare them for inference."""

from collections.abc import Sequence

import torch
from detectron2.modeling import build_model as _build_registered_model
from torch import nn

import parking.modeling  # noqa: F401  (fills the registries)
from parking.checkpoint import Weights, check_all_fit, find_not_finite, load_weights
from parking.layers import fuse_conv_norm
from parking.modeling.dense_heads import iter_raw
from parking.modeling.ensemble import DetectionFusion
from parking.modeling.test_time_augmentation import YOLOWithTTA
from parking.utils.errors import UserError
from parking.utils.text import printable


def build_model(cfg) -> nn.Module:
    """Build the model that MODEL.META_ARCHITECTURE names, on MODEL.DEVICE, with new random weights.

    Its memory order is channels_last, in which convolutions are faster: on one CPU core a training step of pico (batch
    16, 320x192) takes 240 ms instead of 287.

    Raises:
        UserError: the config names a part that no registry has.
    """
    try:
        model = _build_registered_model(cfg)
    except KeyError as e:  # the registry lacks a name; fvcore's message states the name and the registry
        raise UserError(f"The config names a part of the model that does not exist: {e.args[0]}") from e
    return model.to(memory_format=torch.channels_last)


def wrap_for_inference(cfg, model: nn.Module) -> nn.Module:
    """Wrap ``model`` in test-time augmentation if TEST.AUG.ENABLED; inputs, outputs and mode stay the same."""
    if not cfg.TEST.AUG.ENABLED:
        return model
    fusion = None if cfg.TEST.FUSION.NAME == "nms" else DetectionFusion(cfg)
    return YOLOWithTTA(model, fusion=fusion).train(model.training)


def build_inference_model(cfg, weights: Weights, class_names: Sequence[str] | None = None) -> nn.Module:
    """Build the model of ``cfg`` with ``weights``, ready for inference, with test-time augmentation if it is enabled.

    The network computes in TEST.DTYPE; the types of the model's inputs and outputs do not depend on it.

    Args:
        class_names: the classes of the model; None: the classes of the weights.

    Raises:
        UserError: the weights do not fit the model, or have values that TEST.DTYPE cannot hold.
    """
    _check_size(cfg, weights)
    model = build_model(cfg)
    load_weights(model, weights, class_names=class_names or weights.class_names, class_map=cfg.MODEL.YOLO.CLASS_MAP)
    prepare_for_inference(model, inference_dtype(cfg))
    refuse_overflow(model, inference_dtype(cfg), f"weights {printable(weights.path)}")
    return wrap_for_inference(cfg, model)


def prepare_for_inference(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change ``model`` in place: set eval mode, fold norms into convolutions, let the network compute in ``dtype``."""
    fuse_conv_norm(model.eval())
    # Convert only the network. In half precision, pixels, boxes and the tensors that decode boxes would lose too much.
    model.backbone.to(dtype)
    for part in model.head.modules():
        if next(part.children(), None) is None and next(part.parameters(), None) is not None:
            part.to(dtype)
    if dtype != torch.float32:
        model.backbone.register_forward_pre_hook(lambda _, images: (images[0].to(dtype),))
    return model


def inference_dtype(cfg) -> torch.dtype:
    """Return the type that TEST.DTYPE stands for; "auto" depends on MODEL.DEVICE."""
    auto = "float16" if cfg.MODEL.DEVICE.startswith("cuda") else "float32"
    return getattr(torch, auto if cfg.TEST.DTYPE == "auto" else cfg.TEST.DTYPE)


class NotFiniteError(UserError):
    """Weights or outputs of a network are infinite or NaN in the type that it computes in."""


def refuse_overflow(model: nn.Module, dtype: torch.dtype, source: str) -> None:
    """Raise a NotFiniteError if weights do not fit into ``dtype``, and make the model raise one if outputs do not.

    Without this check, values above 65504 would become infinite in float16, and boxes would silently be missing.

    Args:
        model: from :func:`prepare_for_inference`.
        source: the name of the weights in error messages.
    """
    name = str(dtype).removeprefix("torch.")
    advice = "set TEST.DTYPE to float32" if dtype != torch.float32 else "use other weights"
    lost = find_not_finite(model.state_dict())
    if lost:
        raise NotFiniteError(f"{source}: {lost[0]}, its norm folded in, has values that {name} cannot hold; {advice}.")

    def check(head, args, raw) -> None:
        if not torch.stack([torch.stack(torch.aminmax(tensor)) for tensor in iter_raw(raw)]).isfinite().all():
            raise NotFiniteError(f"{source}: the network's outputs for a picture are not finite in {name}; {advice}.")

    model.head.register_forward_hook(check)


def find_shapes(cfg) -> dict[str, torch.Tensor]:
    """Return the state dict of the model of ``cfg``; its tensors have shapes, but no values. NUM_CLASSES may be 0."""
    return build_without_memory(cfg).state_dict()


def build_without_memory(cfg) -> nn.Module:
    """Build the model of ``cfg`` on the "meta" device, to see whether its parts fit together; NUM_CLASSES may be 0."""
    shapes_only = cfg.clone()
    shapes_only.defrost()
    shapes_only.MODEL.DEVICE = "meta"
    shapes_only.MODEL.YOLO.NUM_CLASSES = cfg.MODEL.YOLO.NUM_CLASSES or 1  # 0: the data set's number, found later
    with torch.device("meta"):
        return build_model(shapes_only)


def _check_size(cfg, weights: Weights) -> None:
    """Raise a UserError if the model is far larger than its weights, before memory is allocated for the model."""
    own = find_shapes(cfg)
    if sum(t.numel() for t in own.values()) > 2 * sum(t.numel() for t in weights.state_dict.values()):
        check_all_fit(weights.state_dict, own, weights)
