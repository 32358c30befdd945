#!/usr/bin/env python
"""Measure how well the anchors of a config fit the boxes of its training set, and propose better ones.

  python tools/compute_anchors.py --config-file configs/yolo.yaml [--output anchors.yaml] [KEY VALUE ...]

The best possible recall is the share of boxes that some anchor fits: widths and heights of the two differ by less than
a factor of MODEL.ANCHOR_HEAD.ANCHOR_RATIO. Better anchors are proposed if this recall is below 0.98. Train with them by

  python tools/train_net.py --config-file anchors.yaml

If the config has SOLVER.STAGES, the first stage counts. Boxes are those of DATASETS.TRAIN, scaled to INPUT.SIZE_TRAIN.
"""

import argparse
import os
from pathlib import Path

from parking.utils.cli import ArgumentParser, add_opts_argument, at_least, run_tool, say
from parking.utils.errors import UserError
from parking.utils.files import check_writable, open_atomic

GOOD_RECALL = 0.98


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--num-generations", type=at_least(0), default=1000, metavar="N", help="refinements (1000)")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="seed of the refinement (0)")
    parser.add_argument("--output", metavar="FILE.yaml", help="config with the proposed anchors to write")
    add_opts_argument(parser)
    args = parser.parse_args()
    if args.output and not args.output.endswith((".yaml", ".yml")):
        parser.error(f"--output {args.output} must end in .yaml")
    return args


def main() -> None:
    args = parse_args()
    if args.output:
        if Path(args.output).exists():
            raise UserError(f"--output {args.output} exists already; give another file.")
        check_writable(Path(args.output).parent, name="the folder of --output,")
    say("Loading PyTorch and detectron2 ...")
    import numpy as np
    from detectron2.data import MetadataCatalog

    from parking.challenge.registration import register_datasets_from_config
    from parking.config import Task
    from parking.config.checks import check_values
    from parking.config.stages import read_stages
    from parking.data.anchors import (
        MIN_BOX_SIDE,
        collect_box_sizes,
        format_config,
        format_fit,
        measure_fit,
        propose_anchors,
    )
    from parking.data.build import load_train_dicts
    from parking.utils.logs import setup_logging

    setup_logging()
    stage = read_stages(args.config_file, args.opts)[0]
    cfg = stage.cfg
    check_values(cfg, Task.TRAIN)
    if cfg.MODEL.HEAD.NAME != "AnchorHead":
        raise UserError(f"MODEL.HEAD.NAME is {cfg.MODEL.HEAD.NAME}, which has no anchors: there is nothing to fit.")
    anchors, max_ratio = np.array(cfg.MODEL.ANCHOR_HEAD.ANCHORS, dtype=np.float64), cfg.MODEL.ANCHOR_HEAD.ANCHOR_RATIO
    size = cfg.INPUT.SIZE_TRAIN
    register_datasets_from_config(cfg, cfg.DATASETS.TRAIN)
    boxes = collect_box_sizes(load_train_dicts(cfg), tuple(size))
    left_out = f"{boxes.num_small:,} narrower or lower than {MIN_BOX_SIDE:g} pixels and {boxes.num_crowds:,} crowds"
    if not len(boxes.sizes):
        raise UserError(f"DATASETS.TRAIN {cfg.DATASETS.TRAIN} has no box to fit anchors to ({left_out} left out).")
    of_stage = f" of stage {stage.name}" if stage.name else ""
    say(f"{len(boxes.sizes):,} boxes at {size[1]} x {size[0]} pixels{of_stage}; left out: {left_out}")
    names = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).thing_classes
    fit = measure_fit(boxes.sizes, anchors, max_ratio)
    say(format_fit(boxes, names, anchors, max_ratio))
    if fit.recall >= GOOD_RECALL:
        say(f"Best possible recall is {fit.recall:.4f}, not below {GOOD_RECALL}: nothing is proposed or written.")
        return
    how = {"num_generations": args.num_generations, "seed": args.seed}
    proposed = propose_anchors(boxes.sizes, anchors.shape[:2], max_ratio, **how)
    proposed_fit = measure_fit(boxes.sizes, proposed, max_ratio)
    say(f"Best possible recall is {fit.recall:.4f}, below {GOOD_RECALL}. With other anchors:")
    say(format_fit(boxes, names, proposed, max_ratio))
    if proposed_fit.recall <= fit.recall:
        say("They fit no more boxes: nothing is proposed or written. Another --seed may find better ones.")
        return
    say(f"Best possible recall would be {proposed_fit.recall:.4f}, with\n\n{format_config(proposed)}")
    if args.output:
        base = os.path.relpath(Path(args.config_file).resolve(), Path(args.output).resolve().parent)
        with open_atomic(args.output) as file:
            file.write(format_config(proposed, base).encode())
        say(f"written: {args.output}, that is {args.config_file} with these anchors")


if __name__ == "__main__":
    run_tool(main)
