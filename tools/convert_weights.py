#!/usr/bin/env python
"""Convert published YOLOv5 or YOLOX weights (or our own) to a .pth or .safetensors that inference can use alone.

  python tools/convert_weights.py yolov5s.pt yolov5s.safetensors

No code in the input is run, and the input stays as it is. The output also holds the config that fits, class names,
category ids and the name and checksum of the input.
"""

import argparse
import dataclasses
import os
from pathlib import Path

from parking.utils.cli import ArgumentParser, run_tool, say
from parking.utils.errors import UserError
from parking.utils.text import printable

COCO_CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "coco"


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("input", metavar="IN", help="weights file: .pt, .pth or .safetensors")
    parser.add_argument("output", metavar="OUT", help="file to write: .pth or .safetensors")
    parser.add_argument(
        "--config-file",
        metavar="FILE",
        help="the model's config; default: the config in IN, else the one of configs/coco/ that fits",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    args = parser.parse_args()
    if not args.output.endswith((".pth", ".safetensors")):
        parser.error(f"OUT {args.output} must end in .pth or .safetensors")
    return args


def main() -> None:
    args = parse_args()
    if "://" not in args.input and not os.path.isfile(args.input):
        raise UserError(f"weights {printable(args.input)} do not exist; check the path.")
    if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
        raise UserError(f"{printable(args.output)} is IN itself, which stays as it is; give another OUT.")
    if os.path.exists(args.output) and not args.overwrite:
        raise UserError(f"{printable(args.output)} exists already; give another OUT, or --overwrite.")
    say("Loading PyTorch and detectron2 ...")
    from parking.challenge.registration import find_category_ids
    from parking.checkpoint import describe_origin, distinct_names, read_weights, write_weights
    from parking.config.plain import describe_config
    from parking.inference.build import build_inference_model
    from parking.inference.models import find_fitting_config

    weights = read_weights(args.input)
    cfg, source = find_fitting_config(weights, args.config_file, candidates=sorted(COCO_CONFIGS.glob("*.yaml")))
    names = weights.class_names
    if not names:
        raise UserError(f"weights {printable(args.input)} carry no class names: their boxes would have no meaning.")
    on_cpu = cfg.clone()
    on_cpu.MODEL.DEVICE = "cpu"
    build_inference_model(on_cpu, weights)  # called only for the UserError that it raises if the weights are unusable
    weights = dataclasses.replace(
        describe_origin(weights),
        config=describe_config(cfg),
        category_ids=weights.category_ids or find_category_ids(distinct_names(names)),
    )
    write_weights(args.output, weights)
    written = read_weights(args.output)
    differing = [name for name, tensor in weights.state_dict.items() if not written.state_dict[name].equal(tensor)]
    if differing:
        raise RuntimeError(f"{args.output} was read back with other values in {differing}")
    say(f"model:     {source}")
    say(f"tensors:   {weights.describe_tensors()} of IN, which are all tensors of the model; equal when read back")
    say(f"classes:   {len(names)}: {printable(', '.join(names[:5]))}{', ...' if len(names) > 5 else ''}")
    say(f"origin:    {printable(weights.origin['file'])}, sha256 {weights.origin['sha256']}")
    say(f"written:   {printable(args.output)} ({os.path.getsize(args.output) / 1e6:.1f} MB)")


if __name__ == "__main__":
    run_tool(main)
