"""Builds the backbone that a config names."""

from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import Backbone
from detectron2.modeling import build_backbone as build_registered_backbone

from parking.utils.constants import DETECTRON2_BACKBONES
from parking.utils.errors import UserError
from parking.utils.text import printable


def build_backbone(cfg) -> Backbone:
    """Build the backbone that MODEL.BACKBONE.NAME names; it may be this project's or one of detectron2's.

    Raises:
        UserError: detectron2 cannot build a backbone of its own with the values of the config.
    """
    name = cfg.MODEL.BACKBONE.NAME
    if name not in DETECTRON2_BACKBONES:
        return build_registered_backbone(cfg)
    try:
        return build_registered_backbone(_with_all_keys(cfg))
    except (AssertionError, ValueError, RuntimeError, KeyError) as e:
        raise UserError(
            f"MODEL.BACKBONE.NAME {name}: detectron2 cannot build it as MODEL.RESNETS and MODEL.FPN say "
            f"({printable(str(e)[:200]) or type(e).__name__}); change them."
        ) from e


def _with_all_keys(cfg):
    """Copy ``cfg`` and add the keys, with their defaults, that detectron2's ResNets read and our configs lack."""
    full, defaults = cfg.clone(), get_detectron2_cfg().MODEL.RESNETS
    full.defrost()
    for key in ("DEFORM_ON_PER_STAGE", "DEFORM_MODULATED", "DEFORM_NUM_GROUPS"):
        full.MODEL.RESNETS[key] = defaults[key]
    return full
