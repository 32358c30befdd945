from parking.data.transforms.augmentation import RandomAugInput, get_sample_rng
from parking.data.transforms.color import HSVTransform, RandomHSV
from parking.data.transforms.flip import RandomFlip
from parking.data.transforms.letterbox import LetterboxTransform, pad_to_size, resize_to_fit
from parking.data.transforms.mosaic import blend_images, compute_mosaic_offsets, crop_to_canvas, place_boxes
from parking.data.transforms.warp import RandomPerspective, WarpTransform, clip_boxes, find_box_candidates

__all__ = [
    "HSVTransform",
    "LetterboxTransform",
    "RandomAugInput",
    "RandomFlip",
    "RandomHSV",
    "RandomPerspective",
    "WarpTransform",
    "blend_images",
    "clip_boxes",
    "compute_mosaic_offsets",
    "crop_to_canvas",
    "find_box_candidates",
    "get_sample_rng",
    "pad_to_size",
    "place_boxes",
    "resize_to_fit",
]
