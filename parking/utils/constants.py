"""Numbers and names that several parts of the package share."""

#: Names of the challenge's data sets, which need no entry in DATASETS.COCO.
PARKING_DATASETS = ("parking_train", "parking_val", "parking_trainval", "parking_test")

#: Gray level (0..255) that fills the space around images: in training samples, in inference and in padded batches.
PAD_VALUE = 114

#: Name of each head of this project in the registry -> name of the group in MODEL whose keys only this head reads.
HEAD_GROUPS = {"AnchorHead": "ANCHOR_HEAD", "DistributionHead": "DISTRIBUTION_HEAD", "YOLOXHead": "YOLOX_HEAD"}

#: Name of this project's own backbone in detectron2's registry.
CSP_DARKNET_PAFPN = "build_csp_darknet_pafpn_backbone"
#: Names, in detectron2's registry, of those backbones of detectron2 that the config has keys for.
RESNET = "build_resnet_backbone"
RESNET_FPN = "build_resnet_fpn_backbone"
RETINANET_FPN = "build_retinanet_resnet_fpn_backbone"
DETECTRON2_BACKBONES = (RESNET, RESNET_FPN, RETINANET_FPN)
