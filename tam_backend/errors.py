"""Errors whose text is written for the person who can do something about them."""


class TamError(Exception):
    """An expected failure. Its text says what is wrong and what would be right; it may be shown to any client."""


class BadInput(TamError):
    """What was given cannot be used: a request, a file, an option, a prompt."""


class MediaError(TamError):
    """A video or an image cannot be fetched, opened or decoded."""


class LabelConfigError(BadInput):
    """The labeling configuration of a project cannot work with this backend."""


class LabelStudioError(TamError):
    """Label Studio refused a call or could not be reached."""


class Unreachable(LabelStudioError):
    """Label Studio cannot be reached at the moment: nothing else that it is asked would be answered either."""


class NotFound(LabelStudioError):
    """Label Studio says that there is no such thing (any more)."""
