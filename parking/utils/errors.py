"""Report errors that the user can fix, each in one sentence, by :class:`UserError` and :func:`explain`."""

import errno
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from .text import printable

# Numbers of errors that are caused by the machine and not by a bug; they are explained even if they name no file.
_ENVIRONMENT = frozenset(
    {errno.EAGAIN, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC}
    | {errno.EROFS, errno.ESTALE}
)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
# Part of the message of a RuntimeError that means a lack of memory -> words that explain it to the user. torch's
# OutOfMemoryError is not in this table, because it is recognised by its class.
_MEMORY_IS_FULL = {
    "can't allocate memory": "the CPU's memory is full",
    "CUDA error: out of memory": "the GPU's memory is full",
    "STATUS_ALLOC_FAILED": "the GPU's memory is full",
}
# Longest message in characters. Longer messages are cut, because names in a message may have any length.
_MAX_LENGTH = 4000


class UserError(Exception):
    """An error that only the user can fix: a wrong file, key or value, a full disk, a process that was killed.

    The message is one clear sentence that names the file, key or value and says what to do. The tools print it without
    a traceback and exit with code 1. Any other exception is a bug and keeps its traceback, unless :func:`explain` has a
    sentence for it. ``str()`` of this error is one line without control characters, whatever names are in it.
    """

    def __str__(self) -> str:
        text = super().__str__()
        # If a data worker raised the error, the loader raises a new one whose message is the traceback. The last line
        # of the traceback is "module.Class: ", followed by the message of the error.
        if text.startswith("Caught ") and "Original Traceback" in text:
            text = text.strip().splitlines()[-1].partition(": ")[2]
        text = printable(text)
        return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} [...] {text[-_MAX_LENGTH // 2 :]}"


def explain(error: BaseException) -> str | None:
    """Return a sentence about ``error`` for the user; None for bugs, which keep their traceback, and for Ctrl-C.

    All tools, in all their processes, call this to decide what they print about an error.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return "memory has run out; close other programs, or use smaller batches and fewer data workers."
    if isinstance(error, BrokenProcessPool):
        return "a worker process was killed, as the system does when memory runs out; use fewer worker processes."
    if is_lost_connection(error):
        return (
            "the connection to another process of this run was lost: that process has ended, or its machine or the "
            "network has failed; what it printed says why."
        )
    return _explain_os_error(error) if isinstance(error, OSError) else None


def is_lost_connection(error: BaseException) -> bool:
    """Whether torch.distributed raised ``error`` because another process has ended or does not answer."""
    # Compare names of classes, because importing torch takes seconds. gloo raises a plain RuntimeError, whose message
    # names a source file of gloo.
    names = {cls.__name__ for cls in type(error).__mro__}
    return bool(names & {"DistBackendError", "DistNetworkError", "DistStoreError"}) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


@contextmanager
def explaining_out_of_memory(when: str, remedy: str) -> Iterator[None]:
    """Turn errors of the ``with`` block about a lack of memory, on a GPU or the CPU, into a UserError.

    Args:
        when: words that say when memory ran out, such as "in iteration 7".
        remedy: words that say which keys to lower, and their present values.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        reason = _find_lack_of_memory(e)
        if reason is None:
            raise
        raise UserError(f"Out of memory {when} ({reason}): {remedy}.") from e


def _find_lack_of_memory(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "the CPU's memory is full"
    if type(error).__name__ == "OutOfMemoryError":  # torch's class, which takes seconds to import
        return str(error).split(". ")[0]
    return next((reason for text, reason in _MEMORY_IS_FULL.items() if text in str(error)), None)


def _explain_os_error(error: OSError) -> str | None:
    if error.errno in _NO_ROOM:
        return f"no room is left to write {_name(error) or 'the results'}; make some and try again."
    if not error.errno or not (error.filename or error.errno in _ENVIRONMENT):
        return None
    reason = error.strerror or errno.errorcode.get(error.errno, "")
    if error.errno == errno.EFBIG:
        reason += ", by a limit such as that of ulimit -f"
    return f"{_name(error) or 'a file'} cannot be used ({reason})."


def _name(error: OSError) -> str:
    return "" if error.filename is None else printable(error.filename2 or error.filename)
