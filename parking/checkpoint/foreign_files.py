"""Explains what a file that was given as weights really is, and what the user can do."""

from collections.abc import Sequence
from typing import BinaryIO

_PACKERS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ", "xz"), (b"7z\xbc\xaf", "7-Zip"), (b"Rar!", "RAR"))
# Each pair has the first bytes of one kind of file, and what a message says about a file of that kind.
_STARTS = (
    (b"version https://git-lfs", "it is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`"),
    (b"TFL3", "it is a TensorFlow Lite model, which is not read; give the .pt it was exported from"),
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, such as Keras weights, which is not read; give PyTorch weights"),
    *((start, f"it is packed with {name}; unpack it first") for start, name in _PACKERS),
    (b"\x89PNG", "it is a picture"),
    (b"\xff\xd8\xff", "it is a picture"),
    (b"%PDF", "it is a PDF file"),
    (b"ftrt", "it is a TensorRT engine, which is not read; give the .pt it was made from"),
)
_LEGACY = (
    "it is in the format of PyTorch before 1.6, which is not read; write it anew with torch.save where it was made"
)
_PICKLE = (
    "it is a bare pickle, such as detectron2's .pkl weights, which are not read: start from random weights "
    "(MODEL.WEIGHTS ''), or save a state dict of this project's model with torch.save"
)
# Beginning of a Python module's name -> note on what the classes of such a module belong to.
_PACKAGES = (
    ("torch._dynamo.", " (a model wrapped by torch.compile: save the state_dict() of the model inside)"),
    ("torch.jit.", " (a TorchScript model: give the .pt it was made from)"),
    ("torch.ao.", " (a quantised model: give the weights before quantisation)"),
    ("torch.fx.", " (a traced model: give the weights it was traced from)"),
    ("models.", " (code of a variant of YOLOv5: only detectors of release 6 and 7 can be used)"),
    ("yolov5.", " (code of a variant of YOLOv5: only detectors of release 6 and 7 can be used)"),
    ("detectron2.", " (a whole model of detectron2: save its state_dict() with torch.save instead)"),
    ("yolox.", " (a whole YOLOX model: save its state_dict() with torch.save instead)"),
)


def explain_class(module: str) -> str:
    """Return a note on what the classes of the Python module ``module`` belong to and what to do; "" if unknown."""
    return next((note for start, note in _PACKAGES if f"{module}.".startswith(start)), "")


def describe_file(file: BinaryIO) -> str:
    """Say for a message what a file is, judging by its first bytes; for complete zip files see :func:`describe_zip`."""
    file.seek(0)
    start = file.read(4096)
    if not start:
        return "it is empty"
    for magic, description in _STARTS:
        if start.startswith(magic) or start[4:8] == magic == b"TFL3":
            return description
    if start.startswith(b"PK"):
        return "it is cut off or damaged"
    if b"ustar" in start[:512]:
        return _LEGACY if b"storages" in start[:100] else "it is a tar archive; unpack it first"
    if start.startswith(b"\x80"):
        # A file written by PyTorch before 1.6 begins with a pickled magic number, which has these bytes.
        return _LEGACY if b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19" in start[:32] else _PICKLE
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, as a download that failed leaves it; download the file itself"
    # A .safetensors file begins with the length of its header in 8 bytes, and the header is a json object.
    if start[8:9] == b"{" and 2 <= int.from_bytes(start[:8], "little") <= 100_000_000:
        return "it is a .safetensors file; give it that ending"
    # An ONNX model is a protocol buffer that begins with the format's version and then the producer's name.
    if (start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x3a")) or b"onnx" in start[:64].lower():
        return "it is an ONNX model, which is not read; give the .pt it was exported from"
    if b"tensorflow" in start.lower() or b"saved_model" in start.lower():
        return "it is a TensorFlow model, which is not read; give PyTorch weights"
    if text.startswith((b"{", b"[", b"path:", b"train:", b"nc:", b"model:", b"_base_:")):
        return "it is a text file (json or yaml), not weights"
    return "it is not a file of torch.save"


def describe_zip(names: Sequence[str]) -> str | None:
    """Say for a message what a zip file is, judging by its parts' names; None if unknown or if torch.save wrote it."""
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return "it is a TorchScript model, which is not read; give the .pt it was exported from"
    if "archive_format" in inner or any(name.startswith("models/") for name in inner):
        return "it is a program of torch.export, which is not read; give the .pt it was exported from"
    if names and all(name.endswith(".npy") for name in names):
        return "it is an .npz file of NumPy: it has no data.pkl; save a state dict with torch.save instead"
    if any(name.endswith("saved_model.pb") for name in names):
        return "it is a TensorFlow model in a zip file, which is not read; give PyTorch weights"
    packed = [name for name in names if name.endswith((".pt", ".pth", ".safetensors"))]
    if packed:
        return "it is a zip file with weights in it; unpack it and give the file inside"
    return None
