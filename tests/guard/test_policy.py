"""Properties of the guard's decisions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taoprofiles.guard.guard import RateLimiter, should_seal
from taoprofiles.holds.hold import Hold, blocking_holds

holds = st.lists(
    st.builds(Hold, shared=st.booleans(), released=st.booleans(), digest=st.sampled_from(["here", "other"])), max_size=5
)


@given(holds)
def test_sealed_is_what_somebody_needs_and_nobody_needs_otherwise(found: list[Hold]) -> None:
    needing = [hold for hold in found if hold.shared and not hold.released]
    assert should_seal(found, "here") == (bool(needing) and all(hold.digest == "here" for hold in needing))
    assert not (should_seal(found, "here") and blocking_holds(found, "here"))


@given(st.integers(0, 10), st.lists(st.floats(0, 30), max_size=100))
def test_never_more_than_the_limit_in_any_minute(times: int, gaps: list[float]) -> None:
    limit, now, tried, allowed = RateLimiter(times), 0.0, [], []
    for gap in gaps:
        now += gap
        granted = limit.allows(now)
        assert granted == (sum(now - moment < 60 for moment in tried) < times)
        limit.count(now)
        tried.append(now)
        allowed += [now] if granted else []
        assert sum(now - moment < 60 for moment in allowed) <= times
