#!/usr/bin/env python
"""Train or evaluate a detector.

python tools/train_net.py --config-file configs/yolo.yaml [--num-gpus N] [--resume] [--eval-only] [KEY VALUE ...]
"""

import argparse
from pathlib import Path

from parking.utils.cli import add_launch_arguments, add_opts_argument, check_opts, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint in OUTPUT_DIR")
    parser.add_argument("--overwrite", action="store_true", help="start anew where OUTPUT_DIR already holds a training")
    parser.add_argument(
        "--eval-only", action="store_true", help="score OUTPUT_DIR's best weights, or those typed as MODEL.WEIGHTS FILE"
    )
    add_launch_arguments(parser)
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    if args.resume and args.overwrite:
        parser.error("--resume continues a training and --overwrite removes it: give one of them")
    return args


def main(args: argparse.Namespace) -> None:
    from detectron2.utils import comm

    from parking.engine import Trainer, setup_training
    from parking.evaluation.report import format_scores

    cfg = setup_training(args)
    if args.eval_only:
        results = evaluate(cfg, args.opts)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        if args.overwrite:
            trainer.remove_previous_training()
        results = trainer.train()
    if comm.is_main_process():
        if results:
            print(format_scores(results))
        if not args.eval_only:
            print_paths(cfg.OUTPUT_DIR)


def evaluate(cfg, opts: list[str]):
    from parking.checkpoint import read_weights
    from parking.engine import Trainer, build_inference_model, choose_eval_classes, choose_weights

    weights = read_weights(choose_weights(cfg, opts))
    class_names = choose_eval_classes(cfg, weights)
    return Trainer.test(cfg, build_inference_model(cfg, weights, class_names), class_names=class_names)


def print_paths(output_dir: str) -> None:
    folder = Path(output_dir)
    for title, name in [
        ("best weights", "model_best.pth"),
        ("final weights", "model_final.pth"),
        ("config", "config.yaml"),
        ("log", "log.txt"),
        ("curves", "metrics.json"),
    ]:
        if (folder / name).exists():
            print(f"{title + ':':15}{folder / name}")
    print(f"{'TensorBoard:':15}tensorboard --logdir {folder}")


def run() -> None:
    args = parse_args()
    print("Loading PyTorch and detectron2 ...", flush=True)
    from parking.engine import launch

    launch(main, args)


if __name__ == "__main__":
    run_tool(run)
