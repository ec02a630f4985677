"""The error tree."""

import pytest

from podvif import errors
from podvif.errors import Bug, PodvifError, Refused, Retry, result_of


@pytest.mark.parametrize(("family", "code"), [(Retry, 11), (Refused, 7), (Bug, 999)])
def test_families(family: type[PodvifError], code: int) -> None:
    """Each family has its code of CNI, which one error may override without changing the family's."""
    assert family("what", "do").code == code
    assert family("what", code=errors.IO_FAILURE).code == 5
    assert family("what").code == code


def test_what_and_what_to_do() -> None:
    """An error has what happened, which is also its text, and what to do about it."""
    error = Refused("it broke", "mend it")

    assert (str(error), error.message, error.remedy) == ("it broke", "it broke", "mend it")


def test_no_error_without_a_family() -> None:
    """The base cannot be raised: an error has to say whose turn it is."""
    with pytest.raises(TypeError):
        PodvifError("it broke")


class _Later(Retry):
    """A kind of its own."""


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "ok"),
        (Retry("x"), "retry"),
        (_Later("x"), "retry"),
        (Refused("x"), "refused"),
        (Bug("x"), "bug"),
        (KeyError("x"), "bug"),
    ],
)
def test_result(error: BaseException | None, result: str) -> None:
    """A result is called by the family of its error, also where the error is a kind of its own."""
    assert result_of(error) == result
