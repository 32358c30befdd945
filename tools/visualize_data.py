#!/usr/bin/env python
"""Draw the ground truth of DATASETS.TRAIN, as it is annotated or as it is trained on.

  python tools/visualize_data.py --source annotation|dataloader --config-file FILE [--num-images N] [KEY VALUE ...]

annotation: images at full size, spread evenly over the data set. dataloader: the first training samples under the
config's SEED, augmented, pixel by pixel as the model gets them.

Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 3 done except unreadable images, 130 Ctrl-C.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from parking.utils import cli
from parking.utils.errors import UserError
from parking.utils.files import check_writable
from parking.utils.marks import OutputFolder


def parse_args() -> argparse.Namespace:
    parser = cli.ArgumentParser(__doc__)
    parser.add_argument("--source", required=True, choices=("annotation", "dataloader"), help="what is drawn")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--stage", metavar="NAME", help="which of the config's SOLVER.STAGES to draw for (the first)")
    parser.add_argument(
        "--output", type=Path, default="output/data_pictures", metavar="DIR", help="folder (output/data_pictures)"
    )
    parser.add_argument("--num-images", type=cli.at_least(1), default=50, metavar="N", help="pictures at most (50)")
    parser.add_argument("--korean", action="store_true", help="draw the class names in Korean")
    cli.add_opts_argument(parser)
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    cli.say("Loading PyTorch and detectron2 ...")
    from detectron2.data import MetadataCatalog

    from parking.challenge.registration import register_datasets_from_config
    from parking.config import Task
    from parking.config.stages import read_stages, select_stages
    from parking.data.build import load_train_dicts
    from parking.data.ground_truth import read_annotated_images, read_training_samples
    from parking.inference.models import check_config, resolve_num_classes
    from parking.utils.logs import setup_logging
    from parking.visualization.drawing import BoxDrawer, encode_image
    from parking.visualization.fonts import find_font

    setup_logging()
    cfg = select_stages(read_stages(args.config_file, args.opts), args.stage)[0].cfg
    check_config(cfg, Task.TRAIN)
    register_datasets_from_config(cfg, cfg.DATASETS.TRAIN)
    metadata = [MetadataCatalog.get(name) for name in cfg.DATASETS.TRAIN]
    if args.korean and (lacking := [data.name for data in metadata if data.get("thing_classes_ko", None) is None]):
        raise UserError(f"--korean: the data set {lacking[0]} has no Korean class names; leave that flag out.")
    image_folders = filter(None, (data.get("image_root", None) for data in metadata))
    check_writable(args.output, name="--output", data_folders=image_folders)
    dataset_dicts = load_train_dicts(cfg)
    display_names = metadata[0].thing_classes_ko if args.korean else None
    if args.korean:
        # Raise an error if no font has all characters; BoxDrawer would draw codes in place of missing characters.
        find_font("".join(display_names))
    drawer = BoxDrawer(metadata[0].thing_classes, display_names)
    if args.source == "annotation":
        read = read_annotated_images
    else:
        read = read_training_samples
        resolve_num_classes(cfg, cfg.DATASETS.TRAIN)
    folder, num_pictures, unreadable = OutputFolder(args.output), 0, []
    samples = tqdm(read(cfg, dataset_dicts, args.num_images, unreadable), unit="image")
    for num_pictures, (file_name, image, boxes, classes) in enumerate(samples, start=1):
        # Add a number to the name, because files in several folders may have the same name.
        with folder.open(f"{Path(file_name).stem}_{num_pictures:05d}.png") as file:
            file.write(encode_image(drawer.draw(image, boxes, classes)))
    cli.say(f"{num_pictures} pictures written to {args.output}")
    for sentence in unreadable:
        cli.complain(f"unreadable: {sentence}")
    return cli.EXIT_UNREADABLE_IMAGES if unreadable else 0


if __name__ == "__main__":
    cli.run_tool(main)
