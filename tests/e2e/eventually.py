"""Waiting for conditions. A test never sleeps for a duration and hopes: it names what it waits for, and on failure says
what it last saw. The bounds are generous; they end a broken test, they decide nothing."""

import time

PATIENCE = 60.0
STEP = 0.02


class NeverHappened(AssertionError):
    """The condition did not come true."""


def eventually(what, condition, patience=PATIENCE):
    """Calls `condition` until it answers something true, and returns that. An AssertionError counts as not yet."""
    end = time.monotonic() + patience
    last = None
    while True:
        try:
            seen = condition()
            if seen:
                return seen
            last = repr(seen)
        except AssertionError as error:
            last = str(error)
        if time.monotonic() > end:
            raise NeverHappened(f"waited {patience:g} s for: {what}; last seen: {last}")
        time.sleep(STEP)
