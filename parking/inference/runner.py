"""Run a model over images: plan batches by padded shape, decode in data workers, use two streams on a GPU.

Evaluations during training, ``--eval-only``, ``infer.py``, :class:`.detector.Detector` and videos all go through here.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, TypeVar

import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

from parking.data.build import build_inference_loader
from parking.data.image_io import compute_resized_sides
from parking.inference.sinks.journal import ResultsJournal
from parking.structures.instances import drop_not_finite, to_detections
from parking.utils.errors import explaining_out_of_memory

T, R = TypeVar("T"), TypeVar("R")

# Batch sizes used when TEST.IMS_PER_BATCH is 0.
_BATCH_SIZE_GPU, _BATCH_SIZE_CPU = 8, 1
# Number of batches that a GPU works on at once.
_NUM_AT_ONCE = 2
# How many batches measure_speed runs. It does not time the first two, because they wait for the workers to start and
# for the setup of the GPU. It does not time two more for each worker either, because the workers decoded these during
# that wait: only later batches show whether decoding keeps up with the model.
_NUM_WARMUP_BATCHES, _NUM_PREFETCHED_PER_WORKER, _NUM_TIMED_PER_WORKER, _MIN_TIMED_BATCHES = 2, 2, 4, 8
_MAX_TIMED_SECONDS = 60.0


def find_batch_size(cfg) -> int:
    """Return the batch size of inference: TEST.IMS_PER_BATCH, or the default of the device if that is 0."""
    if cfg.TEST.IMS_PER_BATCH:
        return cfg.TEST.IMS_PER_BATCH
    return _BATCH_SIZE_GPU if cfg.MODEL.DEVICE.startswith("cuda") else _BATCH_SIZE_CPU


def plan_inference(cfg, model: nn.Module, images: Sequence[dict]) -> list[list[dict]]:
    """Divide ``images`` into batches; all images of a batch have the same size once they are padded.

    If an image were padded to the size of another image in its batch, its scores would depend on that image: scores
    move by 0.01 if the width changes. The batches depend on the arguments alone, so that an interrupted run continues
    with the same batches. They may differ between processes; use :func:`share_plan` if all must have the same.

    Args:
        images: dicts with ``height`` and ``width`` if they are known; an image of unknown size is a batch by itself.

    Returns:
        Batches of ``images``, in the order of their first images.
    """
    batches: list[list[dict]] = []
    open_batches: dict[tuple[int, int], list[dict]] = {}
    for image in images:
        if not image.keys() >= {"height", "width"}:
            batches.append([image])
            continue
        resized = compute_resized_sides(image["height"], image["width"], cfg.INPUT.SIZE_TEST, cfg.INPUT.SIZE_TEST)
        shape = tuple(-(-side // model.size_divisibility) for side in resized)
        if len(open_batches.get(shape, ())) in (0, find_batch_size(cfg)):
            open_batches[shape] = []
            batches.append(open_batches[shape])
        open_batches[shape].append(image)
    return batches


def share_plan(cfg, model: nn.Module, images: Sequence[dict]) -> list[list[dict]]:
    """Call :func:`plan_inference` in the main process and return its batches in all processes; all must call this."""
    places = None
    if comm.is_main_process():
        batches = plan_inference(cfg, model, [{**image, "place": i} for i, image in enumerate(images)])
        places = [[image["place"] for image in batch] for batch in batches]
    # Use the main process's plan in all processes: on another machine, images may have other sizes, which would lead to
    # other batches.
    places = comm.all_gather(places)[0]
    return [[images[i] for i in batch] for batch in places]


def own_share(numbers: Sequence[int]) -> Sequence[int]:
    """Divide ``numbers``, the numbers of batches, among all processes; return those of this process."""
    return numbers[comm.get_rank() :: comm.get_world_size()]


def predict_images(
    cfg,
    model: nn.Module,
    batches: Sequence[list[dict]],
    journal: ResultsJournal,
    *,
    category_ids: Sequence[int],
    title: str = "predicting",
) -> None:
    """Run ``model`` over the batches that ``journal`` lacks, and append the results to the journal.

    All processes call this; each takes its share of the batches.

    Args:
        model: in eval mode, from :func:`.build.build_inference_model`.
        batches: from :func:`share_plan`; the journal holds either all images of a batch or none.
        category_ids: the original id of each of the model's classes.
        title: text of the progress bar, which counts the images of the main process.

    Raises:
        UserError: memory runs out.
    """
    missing = [i for i, batch in enumerate(batches) if batch[0]["image_id"] not in journal.done]
    own = own_share(missing)
    if comm.get_world_size() > 1:
        title = f"{title}, process 0 of {comm.get_world_size()}"
    loader = build_inference_loader(cfg, batches, own)
    with (
        inference_settings(cfg, find_batch_size(cfg)),
        tqdm(
            total=sum(len(batches[i]) for i in own),
            desc=title,
            unit="image",
            dynamic_ncols=True,
            disable=not comm.is_main_process(),
        ) as bar,
    ):
        for batch, found in detect_ahead(model, loader):
            pairs = zip(batch, found, strict=True)
            journal.append([describe(inputs, instances, category_ids) for inputs, instances in pairs])
            bar.update(len(batch))


def measure_speed(cfg, model: nn.Module, batches: Sequence[list[dict]]) -> float:
    """Measure how many seconds per image this process takes for the first ``batches``, decoding included."""
    num_workers = cfg.DATALOADER.NUM_WORKERS
    num_warmup = _NUM_WARMUP_BATCHES + _NUM_PREFETCHED_PER_WORKER * num_workers
    num_batches = num_warmup + max(_MIN_TIMED_BATCHES, _NUM_TIMED_PER_WORKER * num_workers)
    # Give each process different files to measure: a file is read unusually fast if another process has just read it.
    own = list(own_share(range(len(batches))))[:num_batches] or [0]
    num_warmup = min(num_warmup, len(own) // 2)
    num_images, start = 0, perf_counter()
    with inference_settings(cfg, find_batch_size(cfg)):
        for i, (batch, _) in enumerate(detect_ahead(model, build_inference_loader(cfg, batches, own)), start=1):
            num_images += len(batch)
            if i == num_warmup:
                num_images, start = 0, perf_counter()
            elif i > num_warmup and perf_counter() - start > _MAX_TIMED_SECONDS:
                break
        return (perf_counter() - start) / num_images


def detect(model: nn.Module, batch: list[dict]) -> list[Instances | None]:
    """Return the detections in each image of a batch of :func:`build_inference_loader`; None for an unreadable image.

    On the CPU, the model gets one image at a time: there the last bits of a convolution depend on the number of images
    in a batch, and a larger batch saves no time.
    """
    readable = [inputs for inputs in batch if "error" not in inputs]
    on_gpu = next(model.parameters()).is_cuda
    groups = [readable] if on_gpu else [[inputs] for inputs in readable]
    outputs = itertools.chain.from_iterable(model(group) for group in groups if group)
    return [None if "error" in inputs else next(outputs)["instances"] for inputs in batch]


def detect_ahead(
    model: nn.Module, batches: Iterable[list[dict]]
) -> Iterator[tuple[list[dict], list[Instances | None]]]:
    """Yield each batch with what :func:`detect` returns for it, in order; see :func:`run_ahead`."""
    return run_ahead(partial(detect, model), batches, next(model.parameters()).device)


def run_ahead(work: Callable[[T], R], batches: Iterable[T], device: torch.device) -> Iterator[tuple[T, R]]:
    """Yield each batch with what ``work`` returns for it, in order; a GPU works on two batches at once.

    Each batch has a stream of its own: while the suppression of boxes in one batch waits for the GPU or the CPU, the
    network computes the next batch.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch, work(batch)
        return
    streams = [torch.cuda.Stream(device) for _ in range(_NUM_AT_ONCE)]
    for stream in streams:
        # Wait for the current stream, because it may still be copying the weights to the GPU.
        stream.wait_stream(torch.cuda.current_stream(device))
    with ThreadPoolExecutor(_NUM_AT_ONCE) as pool:
        waiting: deque[tuple[T, Future]] = deque()
        for i, batch in enumerate(batches):
            waiting.append((batch, pool.submit(_work_in, streams[i % _NUM_AT_ONCE], work, batch)))
            if len(waiting) == _NUM_AT_ONCE:
                first, result = waiting.popleft()
                yield first, result.result()
        for rest, result in waiting:
            yield rest, result.result()


def _work_in(stream, work, batch):
    # Set inference mode in this worker thread, because it holds only in the thread that sets it.
    with torch.inference_mode(), torch.cuda.stream(stream):
        return work(batch)


def describe(inputs: dict, instances: Instances | None, category_ids: Sequence[int]) -> dict[str, Any]:
    """Convert the results of one image to the dict that :mod:`.sinks.journal` stores for it."""
    image_id = inputs["image_id"]
    if instances is None:
        return {"image_id": image_id, "error": inputs["error"]}
    found = drop_not_finite(to_detections(image_id, instances, category_ids))
    rows = zip(found.boxes.tolist(), found.scores.tolist(), found.category_ids.tolist(), strict=True)
    return {"image_id": image_id, "boxes": [[*box, score, category_id] for box, score, category_id in rows]}


@contextmanager
def inference_settings(cfg, batch_size: int, when: str = "while predicting", *, restart: str = "") -> Iterator[None]:
    """In the block, compute without gradients and with the same kernels each time; if memory runs out, say what to do.

    Args:
        batch_size: largest number of images in a batch, for the error message.
        when: words for the error message that say when memory ran out.
        restart: end of the error message; says how to go on with the changed keys if the same command would not do.

    Raises:
        UserError: memory runs out.
    """
    remedy = (
        f"lower TEST.IMS_PER_BATCH (batches have up to {batch_size} images) or INPUT.SIZE_TEST (now "
        f"{cfg.INPUT.SIZE_TEST}){restart}"
    )
    # Let cuDNN compute in full float32, with the same kernels each time instead of the fastest ones.
    repeatable = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), repeatable, explaining_out_of_memory(when, remedy):
        yield
