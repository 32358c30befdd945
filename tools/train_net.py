#!/usr/bin/env python
"""Train or evaluate a detector.

python tools/train_net.py --config-file configs/yolo.yaml [--num-gpus N] [--stage NAME] [--resume] [--eval-only]
                          [KEY VALUE ...]
"""

import argparse

from parking.utils import cli


def parse_args() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--overwrite", action="store_true", help="start anew if OUTPUT_DIR already holds a training")
    parser.add_argument(
        "--eval-only",
        action="store_true",
        help="score OUTPUT_DIR's best weights, or MODEL.WEIGHTS if it is given as KEY VALUE",
    )
    parser.add_argument("--stage", metavar="NAME", help="use only this one of the config's SOLVER.STAGES")
    cli.add_launch_arguments(parser)
    cli.add_opts_argument(parser)
    args = parser.parse_args()
    if args.resume and args.overwrite:
        parser.error("--resume continues a training and --overwrite removes it: give one of them")
    return args


def main(args: argparse.Namespace) -> None:
    from detectron2.utils import comm

    from parking.engine import list_results, run_evaluation, run_training
    from parking.evaluation.score_table import format_scores

    results = run_evaluation(args) if args.eval_only else run_training(args)
    if not comm.is_main_process():
        return
    if results:
        cli.say(format_scores(results))
    if not args.eval_only:
        for title, path in list_results(args):
            cli.say(f"{title + ':':24}{path}")


def run() -> None:
    args = parse_args()
    cli.check_started_alone(args.num_machines)
    cli.say("Loading PyTorch and detectron2 ...")
    from parking.engine import launch

    launch(main, args)


if __name__ == "__main__":
    cli.run_tool(run)
