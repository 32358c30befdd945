"""The names of model parts that a config may use."""

from detectron2.modeling import BACKBONE_REGISTRY, META_ARCH_REGISTRY

from parking.utils.constants import DETECTRON2_BACKBONES

from .dense_heads import DENSE_HEAD_REGISTRY


def list_registered() -> dict[str, list[str]]:
    """Return, for each config key that names a model part, its possible values: all our parts and some of detectron2's.

    Of detectron2's parts, only backbones that fit this project's heads are listed.
    """
    registries = {
        "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
        "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
        "MODEL.HEAD.NAME": DENSE_HEAD_REGISTRY,
    }
    return {
        key: [
            name
            for name, part in registry
            if name in DETECTRON2_BACKBONES or not part.__module__.startswith("detectron2.")
        ]
        for key, registry in registries.items()
    }
