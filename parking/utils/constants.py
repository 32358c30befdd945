"""Numbers and names that more than one part must agree on."""

#: The challenge's data sets, which need no entry in DATASETS.COCO.
PARKING_DATASETS = ("parking_train", "parking_val", "parking_trainval", "parking_test")

#: Gray level (0..255) around a letterboxed image, in training, inference and the padding of a batch alike.
PAD_VALUE = 114

#: This project's heads, by their names in the registry, and the group of keys in MODEL that only this head reads.
HEAD_GROUPS = {"AnchorHead": "ANCHOR_HEAD", "DistributionHead": "DISTRIBUTION_HEAD", "YOLOXHead": "YOLOX_HEAD"}

#: This project's own backbone, by its name in detectron2's registry.
CSP_DARKNET_PAFPN = "build_csp_darknet_pafpn_backbone"
#: detectron2's backbones, by their names in its registry, for which there are config keys.
RESNET = "build_resnet_backbone"
RESNET_FPN = "build_resnet_fpn_backbone"
RETINANET_FPN = "build_retinanet_resnet_fpn_backbone"
DETECTRON2_BACKBONES = (RESNET, RESNET_FPN, RETINANET_FPN)
