"""Mosaics made as most YOLO loaders make them, for comparison in :mod:`.data`; nothing trains with them."""

import cv2
import numpy as np
import torch

_GRAY = 114


def make_plain_mosaic(dataset_dict: dict, dicts: list[dict], size: tuple[int, int], rng: np.random.Generator) -> dict:
    """Decode four images, resize them, paint them on a canvas of twice the size, warp that, change colours, mirror.

    Args:
        dataset_dict: the first image; the other three are drawn from ``dicts``. Boxes are XYWH_ABS.
        size: height and width in pixels of the sample.
        rng: used in the same order as by our loader with the defaults of INPUT.AUG, so that the mosaics are the same.

    Returns:
        ``image``, uint8 tensor (3, H, W), and ``boxes``, float64 tensor (N, 4), XYXY_ABS.
    """
    h, w = size
    rng.random()
    x_centre, y_centre = int(rng.uniform(w / 2, 3 * w / 2)), int(rng.uniform(h / 2, 3 * h / 2))
    canvas = np.full((2 * h, 2 * w, 3), _GRAY, np.uint8)
    boxes = []
    for i, d in enumerate([dataset_dict] + [dicts[int(rng.integers(len(dicts)))] for _ in range(3)]):
        image = cv2.imdecode(np.fromfile(d["file_name"], np.uint8), cv2.IMREAD_COLOR)
        ratio = min(h / image.shape[0], w / image.shape[1])
        image = cv2.resize(image, (round(image.shape[1] * ratio), round(image.shape[0] * ratio)))
        tile_h, tile_w = image.shape[:2]
        x, y = x_centre - (i in (0, 2)) * tile_w, y_centre - (i in (0, 1)) * tile_h
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + tile_w, 2 * w), min(y + tile_h, 2 * h)
        canvas[y0:y1, x0:x1] = image[y0 - y : y1 - y, x0 - x : x1 - x]
        tile_boxes = np.array([a["bbox"] for a in d["annotations"]], dtype=float).reshape(-1, 4) * ratio
        boxes.append(tile_boxes + [x, y, 0, 0])
    rng.random()
    scale = rng.uniform(0.5, 1.5)
    rng.random(4)
    x_offset, y_offset = rng.uniform(0.4, 0.6, 2)
    matrix = np.array([[scale, 0, x_offset * w - scale * w], [0, scale, y_offset * h - scale * h]])
    image = cv2.warpAffine(canvas, matrix, (w, h), borderValue=(_GRAY,) * 3)
    rng.random()
    image = _change_colours(image, 1 + rng.uniform(-1, 1, 3) * [0.015, 0.7, 0.4])
    boxes = _map_boxes(np.concatenate(boxes), matrix, size)
    rng.random()
    if rng.random() < 0.5:
        image = np.fliplr(image)
        boxes[:, [0, 2]] = w - boxes[:, [2, 0]]
    image = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1))
    return {"image": torch.from_numpy(image), "boxes": torch.from_numpy(boxes)}


def _change_colours(image, gains) -> np.ndarray:
    levels = np.arange(256)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    hue = cv2.LUT(hue, (levels * gains[0] % 180).astype(np.uint8))
    saturation = cv2.LUT(saturation, np.clip(levels * gains[1], 0, 255).astype(np.uint8))
    value = cv2.LUT(value, np.clip(levels * gains[2], 0, 255).astype(np.uint8))
    return cv2.cvtColor(cv2.merge([hue, saturation, value]), cv2.COLOR_HSV2BGR)


def _map_boxes(boxes, matrix, size) -> np.ndarray:
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    mapped = corners * matrix[0, 0] + np.tile(matrix[:, 2], 2)
    clipped = np.clip(mapped, 0, [size[1], size[0]] * 2)
    w, h = clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1]
    area = boxes[:, 2] * boxes[:, 3] * matrix[0, 0] ** 2
    return clipped[(w > 2) & (h > 2) & (w * h > 0.1 * area)]
