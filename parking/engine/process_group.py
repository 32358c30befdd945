"""Connect the processes of a run. On a single machine, they listen only on its loopback address."""

import argparse
import datetime
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm

from parking.utils.errors import UserError
from parking.utils.text import printable

#: How long processes wait for each other at the start, enough to start machines by hand one after the other.
MEETING_TIMEOUT = datetime.timedelta(minutes=30)


def join_process_group(local_rank: int, args: argparse.Namespace, folder: str | os.PathLike) -> None:
    """Join the process group, as detectron2's launcher does; return when all processes have joined.

    Args:
        local_rank: number of this process on this machine.
        args: ``num_gpus``, ``num_machines``, ``machine_rank`` and ``dist_url``, which ``launch`` has checked.
        folder: a folder that only this run on this machine uses.

    Raises:
        UserError: the other processes cannot be reached at ``dist_url``.
    """
    has_gpu = torch.cuda.is_available()
    rank = args.machine_rank * args.num_gpus + local_rank
    world_size = args.num_gpus * args.num_machines
    if args.num_machines == 1:
        _use_loopback()
        store = dist.FileStore(str(Path(folder, "store")), world_size)
    else:
        store = open_store(args.dist_url, is_main=rank == 0, world_size=world_size)
    store.set_timeout(DEFAULT_TIMEOUT)
    dist.init_process_group(
        "NCCL" if has_gpu else "GLOO", store=store, world_size=world_size, rank=rank, timeout=DEFAULT_TIMEOUT
    )
    comm.create_local_process_group(args.num_gpus)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    # Wait for all processes here; otherwise, the first collective could time out because a process starts much later.
    comm.synchronize()


def parse_dist_url(url: str) -> tuple[str, int]:
    """Return host and port of ``tcp://HOST:PORT``.

    Raises:
        UserError: ``url`` has another form, or no address is known for the host.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if not host or not port or url.rstrip("/") != f"tcp://{parts.netloc}" or "@" in parts.netloc:
        raise UserError(
            f"--dist-url {url} is not tcp://HOST:PORT, with a port from 1 to 65535; give such an address of machine 0."
        )
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise UserError(
            f"--dist-url {url}: the host '{host}' is not known ({printable(e)}); give a name or number of machine 0."
        ) from e
    return host, port


def open_store(
    url: str, *, is_main: bool, world_size: int, timeout: datetime.timedelta = MEETING_TIMEOUT
) -> dist.Store:
    """Open the store through which processes find each other; return when ``world_size`` processes have opened it.

    Args:
        is_main: whether this process hosts the store.

    Raises:
        UserError: the port is in use, or the other processes do not open the store in time.
    """
    host, port = parse_dist_url(url)
    try:
        return dist.TCPStore(host, port, world_size, is_master=is_main, timeout=timeout)
    except dist.DistError as e:
        raise UserError(
            f"--dist-url {url}: the {world_size} processes did not meet there ({printable(str(e).splitlines()[0])}); "
            "give an address of machine 0 with a free port that all machines can reach, and start them with the same "
            f"command but for --machine-rank within {timeout.total_seconds() / 60:g} minutes."
        ) from e


def _use_loopback() -> None:
    # By default, gloo and NCCL would listen on the address to which the machine's name resolves, which other machines
    # may be able to reach.
    for _, name in socket.if_nameindex():
        if name.startswith("lo"):
            os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name
            return
