"""Functions that tests of this folder run in several processes, which import this module by its name."""

import argparse
import contextlib
import errno
import ipaddress
import os
import re
import signal
import time
from pathlib import Path

import torch
from detectron2.engine import create_ddp_model
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from parking.config import get_cfg
from parking.engine import launch
from parking.engine.evaluation import _broadcast_from_main
from parking.engine.train_loop import AccumulatingTrainer
from parking.inference.barrier import PatientBarrier
from parking.modeling import DENSE_HEAD_REGISTRY, YOLO
from parking.utils.errors import UserError

HEADS = [name for name, head in DENSE_HEAD_REGISTRY if head.__module__.startswith("parking.")]
ACCUMULATION = 3
# The optimizer steps after iterations 2, 5, 8 and 11.
SAVED_AFTER = 6
NUM_ITERS = 12
GLOBAL_BATCH = 4


class SumOfLosses(torch.nn.Module):
    """A loss that is a sum over images, as the detector's is, without anything that mixes images."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))

    def forward(self, batch):
        return {"loss_a": self.layers(torch.stack(batch)).square().sum()}


def make_trainer(start_iter):
    images = torch.randn(NUM_ITERS, GLOBAL_BATCH, 3, generator=torch.Generator().manual_seed(2))
    share = GLOBAL_BATCH // comm.get_world_size()
    first = comm.get_rank() * share
    batches = [list(batch[first : first + share]) for batch in images[start_iter:]]
    model = SumOfLosses()
    return AccumulatingTrainer(
        create_ddp_model(model, broadcast_buffers=False, device_ids=None),
        batches,
        torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9),
        max_iter=NUM_ITERS,
        accumulation=lambda iteration: ACCUMULATION,
    )


def run_iterations(trainer, iterations):
    with EventStorage() as storage:
        for trainer.iter in iterations:
            storage.iter = trainer.iter
            trainer.run_step()
        trainer.flush_metrics()
    return [value for value, _ in storage.history("total_loss").values()]


def weights_of(trainer):
    model = trainer.model.module if hasattr(trainer.model, "module") else trainer.model
    return {name: value.clone() for name, value in model.state_dict().items()}


def train_and_resume(args):
    """Train, save after a step, and go on in a new trainer; save the results in ``args.folder``, by rank."""
    trainer = make_trainer(0)
    losses = run_iterations(trainer, range(SAVED_AFTER))
    saved = {"model": weights_of(trainer), "trainer": trainer.state_dict()}
    checkpoint = Path(args.folder, "checkpoint.pth")
    if comm.is_main_process():
        torch.save(saved, checkpoint)
    comm.synchronize()
    saved_by_main = torch.load(checkpoint, weights_only=True)

    resumed = make_trainer(SAVED_AFTER)
    getattr(resumed.model, "module", resumed.model).load_state_dict(saved_by_main["model"])
    resumed.load_state_dict(saved_by_main["trainer"])
    run_iterations(resumed, range(SAVED_AFTER, NUM_ITERS))
    run_iterations(trainer, range(SAVED_AFTER, NUM_ITERS))
    results = {
        "losses": torch.tensor(losses),
        "weights amid": saved["model"],
        "weights": weights_of(trainer),
        "weights resumed": weights_of(resumed),
        "broadcast": broadcast_ranks(),
        "detector gradients": {head: detector_gradients(head) for head in HEADS},
    }
    torch.save(results, Path(args.folder, f"{comm.get_world_size()}-{comm.get_rank()}.pth"))


def detector_gradients(head):
    """Gradients of a small detector with frozen norms; processes share four images with 0, 1, 2 and 9 boxes."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.HEAD.NAME = "cpu", head
    cfg.MODEL.YOLO.WIDTH_MULTIPLE, cfg.MODEL.YOLO.NUM_CLASSES = 0.125, 3
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = YOLO(cfg).train()
        batch = [make_sample(num_boxes) for num_boxes in (0, 1, 2, 9)]
    share = len(batch) // comm.get_world_size()
    data = [batch[comm.get_rank() * share : (comm.get_rank() + 1) * share]]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ddp_model = create_ddp_model(model, broadcast_buffers=False, device_ids=None)
    trainer = AccumulatingTrainer(ddp_model, data, optimizer, max_iter=2, accumulation=lambda iteration: 1)
    for module in model.modules():  # not before: the trainer puts all into training mode
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    gradients = {}
    trainer.after_backward = lambda: gradients.update({n: p.grad.clone() for n, p in model.named_parameters()})
    losses = run_iterations(trainer, range(1))
    return gradients, losses


def make_sample(num_boxes):
    corners = torch.rand(num_boxes, 2) * 40
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.cat([corners, corners + 4 + torch.rand(num_boxes, 2) * 20], dim=1))
    instances.gt_classes = torch.randint(0, 3, (num_boxes,))
    return {"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), "instances": instances}


def broadcast_ranks():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    for tensor in model.state_dict().values():
        tensor.fill_(comm.get_rank() + 5)
    _broadcast_from_main(model)
    return model.state_dict()


def raise_user_error(args):
    if comm.get_rank() == 1:
        raise UserError("key A is 1; set it to 2.")
    comm.synchronize()


def await_two_interrupts(args):
    """Go on after the first Ctrl-C and end by the second, like a training; write a file at each."""
    folder, rank = Path(args.folder), comm.get_rank()
    num_received = 0

    def on_interrupt(signum, frame):
        nonlocal num_received
        num_received += 1
        (folder / f"interrupt-{rank}-{num_received}").touch()
        if num_received == 2:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, on_interrupt)
    comm.synchronize()
    (folder / f"ready-{rank}").touch()
    try:
        time.sleep(120)
    finally:
        if rank == 0:
            # This process still writes when the other has ended.
            time.sleep(3)
            (folder / "written").touch()


def interrupt_and_kill(folders):
    """Run twice, in a process of its own: end by interrupts in the first folder, and by a kill in the second."""
    args = argparse.Namespace(num_gpus=2, num_machines=1, machine_rank=0, dist_url="auto", folder=folders[0])
    try:
        launch(await_two_interrupts, args)
    except KeyboardInterrupt:
        Path(folders[0], "interrupted").touch()
    args.folder = folders[1]
    launch(await_two_interrupts, args)


def return_seven_and_rank(args):
    return 7 + comm.get_rank()


def let_the_first_wait(args):
    """Let process 0 wait three seconds at a barrier, which is told to wait for ``args.timeout``."""
    barrier = PatientBarrier() if args.timeout is None else PatientBarrier(args.timeout)
    if comm.get_rank() == 1:
        time.sleep(3)
    barrier.wait()


def run_out_of_room(args):
    if comm.get_rank() == 1:
        raise OSError(errno.ENOSPC, "No space left on device", "results.jsonl")
    comm.synchronize()


def list_listening():
    """Addresses on which this process listens, by Linux's /proc."""
    inodes = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(link)))
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                raw = bytes.fromhex(fields[1].partition(":")[0])
                words = [raw[i : i + 4][::-1] for i in range(0, len(raw), 4)]
                found.append(ipaddress.ip_address(b"".join(words)))
    return found


def note_listening(args):
    comm.all_gather(0)
    PatientBarrier().wait()
    Path(args.folder, str(comm.get_rank())).write_text(" ".join(map(str, list_listening())))
    comm.synchronize()
