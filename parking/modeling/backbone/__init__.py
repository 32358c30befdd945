"""Backbones; importing this package registers ``build_csp_darknet_pafpn_backbone`` with detectron2."""

from .build import build_backbone
from .csp_darknet import CSPDarknet
from .pafpn import PAFPN, build_csp_darknet_pafpn_backbone

__all__ = ["PAFPN", "CSPDarknet", "build_backbone", "build_csp_darknet_pafpn_backbone"]
