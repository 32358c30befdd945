"""The one exception that means "the user can fix this"."""


class UserError(Exception):
    """A mistake in what the user gave: a file, a key, a value.

    The message is one clear sentence that names the file, key or value and says what to do. The tools print it without
    a traceback and exit with code 1; everything else that is raised is a bug of ours and keeps its traceback.
    """

    def __str__(self) -> str:
        text = super().__str__()
        # A data loader raises its worker's exception anew with the traceback as the message; the last line of that is
        # "module.Class: " and the sentence.
        if text.startswith("Caught ") and "Original Traceback" in text:
            return text.strip().splitlines()[-1].partition(": ")[2]
        return text
