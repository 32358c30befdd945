#!/usr/bin/env python
"""Find objects in images, a video, or what a camera sees.

  python tools/infer.py --input /DATA/test [--config-file FILE] [--weights FILE] [--output DIR] [KEY VALUE ...]
  python tools/infer.py --input /DATA/test --num-gpus 4 --max-hours 3
  python tools/infer.py --input photos/ --weights a.pth --weights b.pth --annotations truth.json --visualize 20
  python tools/infer.py --input drive.mp4 --weights model_best.pth

Started again after an interruption, the same command goes on where it stopped and ends with the same files.
Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 3 done except unreadable images, 130 Ctrl-C.
"""

import argparse
import time
from pathlib import Path

from parking.data.datasets.images import list_images
from parking.inference.sources.video import is_video_input, open_source
from parking.utils import cli
from parking.utils.text import printable

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "yolo.yaml"


def parse_args() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--input", required=True, help="folder, file or glob of images; or a video, camera or URL")
    parser.add_argument("--frames", action="store_true", help="the input is a folder with the frames of a video")
    parser.add_argument("--fps", type=float, help="with --frames: frames per second (10)")
    parser.add_argument("--no-video", action="store_true", help="for a video: write only the boxes, as JSON lines")
    parser.add_argument("--config-file", metavar="FILE", help="default: that in --weights, else configs/yolo.yaml")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="FILE",
        help="default: the best, final or last of the config's OUTPUT_DIR; results of several models are fused",
    )
    parser.add_argument("--output", metavar="DIR", help="where results go; default OUTPUT_DIR/inference")
    parser.add_argument("--image-info", metavar="FILE", help="the challenge's image list; default: beside the input")
    parser.add_argument("--max-hours", type=float, metavar="H", help="use TEST.FALLBACKS if time is too short")
    parser.add_argument("--visualize", type=cli.at_least(0), default=0, metavar="N", help="draw the first N pictures")
    parser.add_argument("--annotations", metavar="FILE", help="COCO json: print scores, and draw its boxes beside ours")
    parser.add_argument(
        "--min-score", type=float, default=0.25, metavar="S", help="lowest score drawn or, for a video, listed (0.25)"
    )
    parser.add_argument("--korean", action="store_true", help="draw the names of the challenge's classes in Korean")
    cli.add_launch_arguments(parser)
    cli.add_opts_argument(parser)
    args = parser.parse_args()
    args.is_video = args.frames or is_video_input(args.input)
    check_flags(parser, args)
    return args


def check_flags(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error if a flag would have no effect or has a value out of range."""
    given = {name for name, value in vars(args).items() if value != parser.get_default(name)}
    for_images = {"image_info", "max_hours", "visualize", "annotations"}
    for_images |= {"num_gpus", "num_machines", "machine_rank", "dist_url"}
    if args.is_video and given & for_images:
        parser.error(f"--{min(given & for_images).replace('_', '-')} is for images, not for videos")
    if not args.is_video and not args.visualize and given & {"min_score", "korean"}:
        parser.error("--min-score and --korean affect pictures only: give --visualize N, too")
    if args.no_video and not args.is_video:
        parser.error("--no-video is for videos, not for images")
    if args.frames and not Path(args.input).is_dir():
        parser.error("--frames is for a folder; a video file is recognised without it")
    if args.fps is not None and not args.frames:
        parser.error("--fps is for --frames: all other inputs state their own rate")
    if not 0 <= args.min_score <= 1:
        parser.error("--min-score must be from 0 to 1")
    if args.max_hours is not None and not args.max_hours > 0:
        parser.error("--max-hours must be above 0")


def run() -> int:
    args = parse_args()
    args.started = time.monotonic()
    cli.check_started_alone(args.num_machines)
    # Check the paths before the slow imports, because most mistakes of users are in the paths.
    if args.is_video:
        with open_source(args.input, fps=args.fps) as source:
            cli.say(f"{source.name}: loading PyTorch and detectron2 ...")
            from parking.inference.command import infer_video

            return tell(infer_video(args, source, DEFAULT_CONFIG))
    args.images = list_images(args.input, args.image_info)
    if args.images.passed_over:
        cli.say(f"not looked at: {args.images.passed_over}")
    cli.say(f"{len(args.images.images)} images in {printable(args.input)}; loading PyTorch and detectron2 ...")
    from parking.engine import launch

    return launch(main, args)


def main(args: argparse.Namespace) -> int:
    from parking.inference.command import infer_images

    outcome = infer_images(args, DEFAULT_CONFIG)
    if outcome is not None:
        return tell(outcome)
    if args.machine_rank:
        cli.say("done: machine 0 has the results")
    return 0


def tell(outcome) -> int:
    """Print the results of an inference, and return the exit code of this tool."""
    cli.say(*outcome.summary, *(f"{name + ':':16}{printable(path)}" for name, path in outcome.files.items()))
    for sentence in outcome.unreadable:
        cli.complain(f"unreadable: {sentence}")
    if outcome.interrupted:
        return cli.EXIT_INTERRUPTED
    return cli.EXIT_UNREADABLE_IMAGES if outcome.unreadable else 0


if __name__ == "__main__":
    cli.run_tool(run)
