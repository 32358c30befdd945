"""Reads the zip files of ``torch.save``: a pickle that describes tensors, and the bytes of these tensors."""

import os
import sys
import zipfile
from typing import BinaryIO

import torch
from torch import Tensor

from parking.utils.limits import MAX_PICKLE_BYTES, MAX_WEIGHTS_BYTES
from parking.utils.machine import available_memory

from .foreign_files import describe_file, describe_zip


class ArchiveError(Exception):
    """Raised if a file was not written by torch.save, is damaged, or claims to hold more than it does."""


class TensorArchive:
    """Reads a file of ``torch.save`` and takes no more memory than the file is large.

    Raises:
        ArchiveError: the file cannot be read; the message says why.
        zipfile.BadZipFile: the zip itself is damaged.
    """

    def __init__(self, file: BinaryIO):
        file_size = os.fstat(file.fileno()).st_size
        if file_size > MAX_WEIGHTS_BYTES:
            raise ArchiveError(f"it has {file_size:,} bytes; weights may have {MAX_WEIGHTS_BYTES:,}")
        if not zipfile.is_zipfile(file):
            raise ArchiveError(describe_file(file))
        self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        names = [entry.filename for entry in entries]
        if (other := describe_zip(names)) is not None:
            raise ArchiveError(other)
        # Refuse compressed parts: PyTorch never compresses, and compressed data may grow a thousandfold when read.
        for entry in entries:
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise ArchiveError(f"its part {entry.filename[:100]!r} is compressed, which parts of weights never are")
        if sum(entry.file_size for entry in entries) > file_size:
            raise ArchiveError("its parts claim to be larger than the file")
        free = available_memory()
        if free is not None and sum(entry.file_size for entry in entries) > free:
            # Such a file fits even on a small disk, because a sparse file takes hardly any room there.
            raise ArchiveError(f"its tensors take {file_size / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
        pickles = [entry for entry in entries if entry.filename.endswith("data.pkl") and entry.filename.count("/") == 1]
        if len(pickles) != 1:
            raise ArchiveError("it is a zip file, but not one that torch.save writes: it has no data.pkl in one folder")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise ArchiveError(f"its description of the tensors has {pickles[0].file_size} bytes, which is absurd")
        self._root = pickles[0].filename.removesuffix("data.pkl")
        self._entries = {entry.filename: entry for entry in entries}
        self._storages: dict[str, Tensor] = {}
        if self._root + "byteorder" in self._entries and self._read("byteorder").decode() != sys.byteorder:
            raise ArchiveError("it was written on a machine with another byte order")

    def read_pickle(self) -> bytes:
        """Read the pickle, which describes the tensors."""
        return self._read("data.pkl")

    def read_storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """Read the 1-D tensor of ``numel`` elements under ``key``; further calls return the same object."""
        entry = self._entries.get(f"{self._root}data/{key}")
        if entry is None:
            raise ArchiveError(f"the storage {key[:100]!r} is missing")
        if entry.file_size != numel * dtype.itemsize:
            raise ArchiveError(f"the storage {key[:100]!r} has {entry.file_size} bytes instead of {numel} {dtype}")
        if key not in self._storages:
            data = bytearray(self._read(f"data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        if self._storages[key].dtype != dtype:
            raise ArchiveError(f"the storage {key[:100]!r} is of two types")
        return self._storages[key]

    def _read(self, name: str) -> bytes:
        return self._zip.read(self._entries[self._root + name])
