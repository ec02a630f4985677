"""The error tree: whose turn it is decides the family.

Law: an error says what happened in one sentence that names its subject, and what to do about it in another.  Each adapter
translates the exceptions of its library at its own door, with the cause chained; nothing below the shells knows CNI's
numbers beyond the ones given here, and one place (`podvif.core.cni.render_error`) turns an error into CNI's document.
"""

# CNI's well-known error codes (CNI SPEC.md section 5 "Error"; 8 and 999 as libcni's pkg/types has them).
INCOMPATIBLE_VERSION = 1
UNSUPPORTED_FIELD = 2
UNKNOWN_CONTAINER = 3
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_CONFIG = 7
INVALID_NETNS = 8
TRY_AGAIN_LATER = 11
NOT_AVAILABLE = 50
INTERNAL = 999


class PodvifError(Exception):
    """Base of all errors that podvif raises on purpose; raise one of its three families, never this.

    Attributes:
        message: what happened, one sentence that names the subject.
        remedy: what to do about it; may be empty.
        code: the CNI error code.
    """

    code: int = INTERNAL

    def __init__(self, message: str, remedy: str = "", *, code: int | None = None) -> None:
        if type(self) is PodvifError:
            raise TypeError("raise Retry, Refused or Bug: the family says whose turn it is")
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if code is not None:
            self.code = code


class Retry(PodvifError):  # noqa: N818  the family names read as verbs at the raise
    """The world is not ready: the same request may succeed later."""

    code = TRY_AGAIN_LATER


class Refused(PodvifError):  # noqa: N818
    """The input or the node is wrong: somebody has to change it before a repeat can succeed."""

    code = INVALID_CONFIG


class Bug(PodvifError):  # noqa: N818
    """podvif is wrong: the message goes into an issue."""

    code = INTERNAL


RESULTS = ("ok", "retry", "refused", "bug")
"""How something ended, in a word: `ok`, or the family of its error."""


def result_of(error: BaseException | None) -> str:
    """One of `RESULTS`; what was not foreseen is a bug."""
    match error:
        case None:
            return "ok"
        case Retry():
            return "retry"
        case Refused():
            return "refused"
    return "bug"
