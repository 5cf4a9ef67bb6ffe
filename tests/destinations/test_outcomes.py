"""What each error becomes: the right column of the tree in `errors.py`."""

import pytest

from sync.errors import (
    AnswerLost,
    Broken,
    Busy,
    ContactGone,
    DeliveryError,
    Gone,
    NotForHere,
    NotSent,
    Refused,
    Throttled,
    Unauthorized,
    Unreachable,
)
from sync.outcomes import Dead, Ignored, Outcome, Paused, Retry, Unknown, outcome_of


class BusyInDoubt(Busy):
    """A vendor's own error, which may have taken effect."""

    may_have_landed = True


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotForHere("no"), Ignored("no")),
        (Refused("no", status=400), Dead("no", 400)),
        (Gone("no", status=404), Ignored("no", 404)),
        (ContactGone("no", status=400), Retry("no", 400, contact_is_gone=True)),
        (Busy("no", status=423, after=2), Retry("no", 423, 2)),
        (BusyInDoubt("no"), Retry("no", may_have_landed=True)),
        (Broken("no", status=500), Retry("no", 500, blames_destination=True, may_have_landed=True)),
        (Throttled("no", status=429, after=7), Paused("no", 429, 7)),
        (Unreachable("no", status=503), Paused("no", 503, may_have_landed=True)),
        (NotSent("no"), Paused("no")),
        (Unauthorized("no", status=401), Paused("no", 401, needs_person=True)),
        (AnswerLost("no"), Unknown("no")),
        (DeliveryError("no"), Retry("no")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_becomes_its_outcome(error: DeliveryError, outcome: Outcome) -> None:
    assert outcome_of(error) == outcome
