"""The one exception that means "the user can fix this"."""

from .text import printable

# Of a message: a name in it may be of any length.
_MAX_LENGTH = 4000


class UserError(Exception):
    """A mistake in what the user gave: a file, a key, a value.

    The message is one clear sentence that names the file, key or value and says what to do. The tools print it without
    a traceback and exit with code 1; everything else that is raised is a bug of ours and keeps its traceback. As text
    it is one line without control characters, whatever names are in it.
    """

    def __str__(self) -> str:
        text = super().__str__()
        # A data loader raises its worker's exception anew with the traceback as the message; the last line of that is
        # "module.Class: " and the sentence.
        if text.startswith("Caught ") and "Original Traceback" in text:
            text = text.strip().splitlines()[-1].partition(": ")[2]
        text = printable(text)
        return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]} [...] {text[-_MAX_LENGTH // 2 :]}"
