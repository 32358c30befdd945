#!/usr/bin/env python
"""Draw the ground truth of DATASETS.TRAIN, as it is annotated or as it is trained on.

  python tools/visualize_data.py --source annotation|dataloader --config-file FILE [--num-images N] [KEY VALUE ...]

annotation: images of the data set at full size, spread evenly over it. dataloader: the first training samples of the
config's SEED, augmented, pixel by pixel as the model gets them.

Exit codes: 0 done, 1 a mistake that the message explains, 2 wrong usage, 3 done but for unreadable images, 130 Ctrl-C.
"""

import argparse
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from parking.utils.cli import (
    EXIT_UNREADABLE_IMAGES,
    ArgumentParser,
    add_opts_argument,
    check_opts,
    complain,
    run_tool,
    say,
)
from parking.utils.errors import UserError
from parking.utils.files import check_writable
from parking.utils.marks import OutputFolder


def parse_args() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--source", required=True, choices=("annotation", "dataloader"), help="what is drawn")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="yaml file, e.g. configs/yolo.yaml")
    parser.add_argument("--stage", metavar="NAME", help="which of the config's SOLVER.STAGES (the first)")
    parser.add_argument(
        "--output", type=Path, default="output/data_pictures", metavar="DIR", help="(output/data_pictures)"
    )
    parser.add_argument("--num-images", type=int, default=50, metavar="N", help="at most so many (50)")
    parser.add_argument("--korean", action="store_true", help="draw the class names in Korean")
    add_opts_argument(parser)
    args = parser.parse_args()
    check_opts(parser, args.opts)
    if args.num_images < 1:
        parser.error(f"--num-images {args.num_images} must be 1 or more")
    return args


def main() -> int:
    args = parse_args()
    say("Loading PyTorch and detectron2 ...")
    from detectron2.data import MetadataCatalog

    from parking.challenge.registration import register_datasets_from_config
    from parking.config import Task
    from parking.config.stages import read_stages, select_stages
    from parking.data.build import load_train_dicts
    from parking.inference.models import check_config
    from parking.utils.logs import setup_logging
    from parking.visualization.drawing import BoxDrawer, encode_image
    from parking.visualization.fonts import find_font

    setup_logging()
    cfg = select_stages(read_stages(args.config_file, args.opts), args.stage)[0].cfg
    check_config(cfg, Task.TRAIN)
    register_datasets_from_config(cfg, cfg.DATASETS.TRAIN)
    metadata = [MetadataCatalog.get(name) for name in cfg.DATASETS.TRAIN]
    check_choices(args, metadata)
    dataset_dicts = load_train_dicts(cfg)
    class_names = metadata[0].thing_classes_ko if args.korean else metadata[0].thing_classes
    if args.korean:
        find_font("".join(class_names))  # raises, because codes would not be Korean
    drawer = BoxDrawer(class_names, metadata[0].get("thing_colors", None))
    read = read_annotations if args.source == "annotation" else read_samples
    folder, num_pictures, unreadable = OutputFolder(args.output), 0, []
    samples = tqdm(read(cfg, dataset_dicts, args.num_images, unreadable), unit="image")
    for num_pictures, (file_name, image, boxes, classes) in enumerate(samples, start=1):
        # The number, because files of several folders may have the same name.
        with folder.open(f"{Path(file_name).stem}_{num_pictures:05d}.png") as file:
            file.write(encode_image(drawer.draw(image, boxes, classes)))
    say(f"{num_pictures} pictures written to {args.output}")
    for sentence in unreadable:
        complain(f"unreadable: {sentence}")
    return EXIT_UNREADABLE_IMAGES if unreadable else 0


def check_choices(args: argparse.Namespace, metadata: list) -> None:
    for data in metadata:
        folder = data.get("image_root", None)
        if folder and args.output.resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(f"--output {args.output} lies in the image folder {folder}, where nothing is written.")
        if args.korean and data.get("thing_classes_ko", None) is None:
            raise UserError(f"--korean: the data set {data.name} has no Korean class names; leave that flag out.")
    check_writable(args.output, name="--output")


def read_annotations(cfg, dataset_dicts: list[dict], num_images: int, unreadable: list[str]) -> Iterator[tuple]:
    """File name, RGB pixels, XYXY_ABS boxes and class ids; what cannot be read is appended to ``unreadable``."""
    from detectron2.structures import BoxMode

    from parking.data.image_io import UnreadableImageError, read_listed_image

    # Neighbours, as the first few images of a video are, would all show the same.
    for record in (dataset_dicts[k] for k in sorted({i * len(dataset_dicts) // num_images for i in range(num_images)})):
        try:
            image = read_listed_image(record, cfg.INPUT.EXIF_ORIENTATION)
        except UnreadableImageError as e:
            unreadable.append(str(e))
            continue
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]]
        yield record["file_name"], image, boxes, [a["category_id"] for a in record["annotations"]]


def read_samples(cfg, dataset_dicts: list[dict], num_images: int, unreadable: list[str]) -> Iterator[tuple]:
    """Like :func:`read_annotations`; ``unreadable`` is what DATASETS.POLICY had replaced by another image."""
    from parking.data.build import build_train_loader
    from parking.inference.models import resolve_num_classes

    resolve_num_classes(cfg, cfg.DATASETS.TRAIN)
    # Workers change no sample, but would make many batches ahead that nobody looks at.
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = build_train_loader(cfg, dataset_dicts, seed=cfg.SEED if cfg.SEED >= 0 else random.randrange(2**31))
    for sample in itertools.islice(itertools.chain.from_iterable(loader), num_images):
        unreadable += sample.get("unreadable", [])
        image, instances = sample["image"].permute(1, 2, 0).contiguous().numpy(), sample["instances"]
        yield sample["file_name"], image, instances.gt_boxes.tensor.numpy(), instances.gt_classes.numpy()


if __name__ == "__main__":
    run_tool(main)
