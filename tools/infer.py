#!/usr/bin/env python
"""Find objects in images.

  python tools/infer.py --input /DATA/test [--config-file FILE] [--weights FILE] [--output DIR] [KEY VALUE ...]

Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 3 done but for unreadable images, 130 Ctrl-C.
"""

import argparse
import sys
from pathlib import Path

from parking.data.datasets.classes import CLASS_NAMES, CLASS_NAMES_KO
from parking.data.datasets.images import list_images
from parking.utils.cli import EXIT_UNREADABLE_IMAGES, add_opts_argument, check_opts, run_tool
from parking.utils.errors import UserError
from parking.utils.files import check_writable

DEFAULT_CONFIG = Path(__file__).resolve().parents[1] / "configs" / "yolo.yaml"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, metavar="PATH", help="folder (with or without images/), file or glob")
    parser.add_argument("--config-file", metavar="FILE", help="default: what --weights carry, else configs/yolo.yaml")
    parser.add_argument("--weights", metavar="FILE", help="default: the best, final or last of the config's OUTPUT_DIR")
    parser.add_argument("--output", metavar="DIR", help="where results go; default OUTPUT_DIR/inference")
    parser.add_argument(
        "--image-info", metavar="FILE", help="the challenge's image list; default: as found beside or above the input"
    )
    parser.add_argument("--visualize", type=int, default=0, metavar="N", help="draw the first N pictures")
    parser.add_argument("--min-score", type=float, default=0.25, metavar="S", help="of a box to be drawn (0.25)")
    parser.add_argument("--korean", action="store_true", help="draw the class names in Korean")
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    return args


def main() -> int:
    args = parse_args()
    # Before the seconds that the imports below take: most mistakes are in the paths.
    images, has_ids, note = list_images(args.input, args.image_info)
    print(f"{len(images)} images in {args.input}; loading PyTorch and detectron2 ...", flush=True)

    from parking.engine import (
        build_inference_model,
        choose_inference_classes,
        find_config_and_weights,
        setup_logging,
    )
    from parking.engine.inference import PictureWriter, get_submission_options, predict_images

    setup_logging()
    cfg, weights = find_config_and_weights(args.config_file, args.weights, args.opts, default_config=DEFAULT_CONFIG)
    class_names, category_ids = choose_inference_classes(cfg, weights)
    # Hours before it is needed.
    classes = dict(zip(class_names, category_ids, strict=True))
    submission = get_submission_options(cfg, classes) if has_ids else None
    if submission and not set(category_ids) <= set(range(1, len(CLASS_NAMES) + 1)):
        submission, note = None, "the classes of these weights are not the challenge's."
    output_dir = args.output or str(Path(cfg.OUTPUT_DIR, "inference"))
    check_writable(output_dir, name="--output")
    model = build_inference_model(cfg, weights, class_names)
    pictures = None
    if args.visualize > 0:
        pictures = PictureWriter(
            images[: args.visualize],
            output_dir=output_dir,
            class_names=class_names,
            display_names=korean_names(class_names) if args.korean else None,
            min_score=args.min_score,
        )
    report = predict_images(
        cfg,
        model,
        images,
        output_dir=output_dir,
        category_ids=category_ids,
        submission=submission,
        pictures=pictures,
    )
    print(f"{report.num_boxes} boxes in {report.num_images} images")
    for name, path in report.files.items():
        print(f"{name + ':':16}{path}")
    if note:
        print(f"no submission.json: {note}")
    for sentence in report.unreadable:
        sys.stderr.write(f"unreadable: {sentence}\n")
    return EXIT_UNREADABLE_IMAGES if report.unreadable else 0


def korean_names(class_names: list[str]) -> list[str]:
    translation = dict(zip(CLASS_NAMES, CLASS_NAMES_KO, strict=True))
    unknown = [name for name in class_names if name not in translation]
    if unknown:
        raise UserError(f"--korean: there is no Korean name for the class {unknown[0]!r} of these weights.")
    return [translation[name] for name in class_names]


if __name__ == "__main__":
    run_tool(main)
