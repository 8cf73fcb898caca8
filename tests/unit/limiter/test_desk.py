"""The limiter's decisions, without sockets or a clock."""

import math

import pytest

from engine.core.quota import NO_RATES, Quota, Rates
from engine.limiter.desk import Desk, Unwanted
from engine.wire.messages import Attach, Grant, Join, Need, Observed

RUN = 1


def make_desk(rpm: int | None = 6_000, tpm: int | None = None) -> Desk:
    """A desk with one run that declares these limits."""
    desk = Desk(Quota(rpm=rpm, tpm=tpm, now=0.0), epoch=7)
    attach(desk, RUN, rpm, tpm)
    return desk


def attach(
    desk: Desk,
    run: int,
    rpm: int | None = None,
    tpm: int | None = None,
    *,
    share: float = 1.0,
    now: float = 0.0,
) -> None:
    desk.attach(Attach("", run, f"run {run}", Rates(rpm or 0, tpm or 0), share), now)


def join(
    desk: Desk, peer: bytes, slot: int, pid: int = 0, epoch: int = 0, largest: int = 0, run: int = RUN
) -> None:
    pid = pid or run * 1000 + slot
    desk.join(peer, Join(token="", run=run, slot=slot, pid=pid, epoch=epoch, largest=largest))


def need(desk: Desk, peer: bytes, first: int, charges: list[int], now: float = 0.0) -> bool:
    return desk.need(peer, Need(first=first, charges=charges, settled=0), now)


def given(grants: list[tuple[bytes, Grant]], peer: bytes) -> int:
    return max((grant.upto for to, grant in grants if to == peer), default=0)


def run_until_idle(desk: Desk, now: float) -> dict[bytes, int]:
    upto: dict[bytes, int] = {}
    while desk.next_at < math.inf:
        now = max(now, desk.next_at)
        for peer, grant in desk.give(now):
            upto[peer] = grant.upto
        now += 0.015
    return upto


def test_a_turn_is_one_message_and_the_one_who_had_least_comes_next() -> None:
    desk = make_desk()
    for slot, peer in enumerate((b"a", b"b", b"c")):
        join(desk, peer, slot)
        need(desk, peer, 0, [0] * 100)
    order: list[bytes] = []
    now = 1.0
    for _ in range(9):
        grants = desk.give(now)
        assert len(grants) == 1
        order.append(grants[0][0])
        now += 0.05
    assert sorted(order[:3]) == sorted(order[3:6]) == sorted(order[6:]) == [b"a", b"b", b"c"]


def test_a_worker_with_dear_calls_gets_the_same_share_of_the_tokens_not_of_the_calls() -> None:
    desk = make_desk(rpm=None, tpm=600_000)
    join(desk, b"dear", 0)
    join(desk, b"cheap", 1)
    need(desk, b"dear", 0, [5_000] * 1_000)
    need(desk, b"cheap", 0, [50] * 100_000)
    now, upto = 0.0, {b"dear": 0, b"cheap": 0}
    while now < 30.0:
        for peer, grant in desk.give(now):
            upto[peer] = grant.upto
        now = max(desk.next_at, now + 0.015)
    assert upto[b"dear"] * 5_000 == pytest.approx(upto[b"cheap"] * 50, rel=0.1)


def test_a_worker_that_was_away_does_not_make_up_for_it() -> None:
    desk = make_desk()
    join(desk, b"a", 0)
    join(desk, b"b", 1)
    need(desk, b"a", 0, [0] * 10_000)
    now = 0.0
    while now < 10.0:
        desk.give(now)
        now += 0.02
    need(desk, b"b", 0, [0] * 10_000, now)
    upto = {b"a": 0, b"b": 0}
    begun_at = desk.granted_requests
    while now < 11.0:
        for peer, grant in desk.give(now):
            upto[peer] = grant.upto
        now += 0.02
    assert upto[b"b"] == pytest.approx((desk.granted_requests - begun_at) / 2, abs=6)


def test_what_was_told_twice_is_queued_once_and_a_gap_is_noticed() -> None:
    desk = make_desk()
    join(desk, b"a", 0)
    assert need(desk, b"a", 0, [1, 2])
    assert need(desk, b"a", 0, [1, 2, 3])
    assert need(desk, b"a", 1, [2])
    assert desk.waiting == 3
    assert not need(desk, b"a", 4, [5])
    assert desk.waiting == 3


def test_the_same_process_finds_its_queue_again_under_another_address_and_a_new_one_does_not() -> None:
    desk = make_desk()
    join(desk, b"a", 0, pid=5)
    need(desk, b"a", 0, [0] * 10)
    again = desk.join(b"a2", Join(token="", run=RUN, slot=0, pid=5, epoch=7, largest=0))
    assert (again.told, again.given, desk.knows(b"a"), desk.waiting) == (10, 0, False, 10)
    other = desk.join(b"n", Join(token="", run=RUN, slot=0, pid=6, epoch=0, largest=0))
    assert (other.told, other.given, desk.waiting) == (0, 0, 0)


def test_abandoned_calls_are_not_granted_and_later_ones_are() -> None:
    desk = make_desk()
    join(desk, b"a", 0)
    need(desk, b"a", 0, [0] * 10)
    desk.abandon(b"a", 8)
    assert desk.waiting == 2
    need(desk, b"a", 10, [0])
    desk.give(0.0)
    assert run_until_idle(desk, 1.0) == {b"a": 11}
    assert desk.granted_requests == 3


def test_a_worker_told_of_an_abandoned_call_it_never_announced_starts_behind_it() -> None:
    desk = make_desk()
    join(desk, b"a", 0)
    desk.abandon(b"a", 4)
    assert need(desk, b"a", 4, [0])
    assert given(desk.give(1.0), b"a") == 5


def test_a_charge_that_makes_no_sense_is_refused_and_does_not_block_the_others() -> None:
    desk = make_desk(rpm=None, tpm=600)
    join(desk, b"a", 0)
    join(desk, b"b", 1)
    with pytest.raises(Unwanted, match="less than nothing"):
        need(desk, b"a", 0, [5, -1])
    assert not desk.knows(b"a")
    need(desk, b"b", 0, [6])
    assert given(desk.give(60.0), b"b") == 1


def test_a_worker_whose_call_can_never_pass_is_passed_over_until_it_abandons_it() -> None:
    desk = make_desk(rpm=None, tpm=600)
    join(desk, b"a", 0)
    join(desk, b"b", 1)
    need(desk, b"a", 0, [5, 601])
    assert desk.is_stuck(b"a")
    need(desk, b"b", 0, [6])
    assert not desk.is_stuck(b"b")
    assert [peer for peer, _ in desk.give(60.0)] == [b"b"]
    assert desk.next_at == math.inf
    desk.abandon(b"a", 2)
    assert need(desk, b"a", 2, [5], 60.0)
    assert given(desk.give(61.0), b"a") == 3


def test_a_lost_workers_permits_are_spent() -> None:
    desk = make_desk(rpm=60)
    join(desk, b"a", 0)
    join(desk, b"b", 1)
    need(desk, b"a", 0, [0])
    need(desk, b"b", 0, [0])
    assert given(desk.give(1.1), b"a") == 1
    desk.leave(b"a")
    assert desk.give(1.2) == []
    assert given(desk.give(desk.next_at), b"b") == 1
    assert desk.next_at == math.inf


def test_only_a_worker_that_knew_another_limiter_brings_its_largest_charge_along() -> None:
    desk = make_desk(rpm=None, tpm=60_000)
    join(desk, b"a", 0, epoch=7, largest=5_000)
    need(desk, b"a", 0, [10])
    assert given(desk.give(0.2), b"a") == 1
    join(desk, b"b", 1, epoch=6, largest=5_000)
    need(desk, b"b", 0, [10], 0.3)
    assert desk.give(0.3) == []
    assert desk.next_at > 5.0  # first the debt the other limiter may have left


def test_a_lower_limit_makes_those_stuck_that_wait_with_dearer_calls() -> None:
    desk = make_desk(rpm=None, tpm=60_000)
    join(desk, b"a", 0)
    join(desk, b"b", 1)
    need(desk, b"a", 0, [20_000, 100])
    need(desk, b"b", 0, [100])
    attach(desk, RUN, None, 5_000)
    assert desk.who_is_stuck() == [b"a"]
    desk.give(0.0)
    assert run_until_idle(desk, 0.0) == {b"b": 1}
    attach(desk, RUN, None, 30_000, now=1.0)
    assert desk.who_is_stuck() == []
    desk.give(1.0)
    assert run_until_idle(desk, 1.0)[b"a"] == 2


def test_a_higher_limit_lets_calls_go_at_its_rate_at_once() -> None:
    desk = make_desk(rpm=60)
    join(desk, b"a", 0)
    need(desk, b"a", 0, [0] * 1_000)
    desk.give(1.0)
    attach(desk, RUN, 6_000, now=1.0)
    for hundredth in range(500):
        desk.give(1.0 + hundredth / 100)
    assert desk.granted_requests > 450  # a hundred a second for five seconds


# --- several runs -------------------------------------------------------------------------------------------


def saturate(desk: Desk, seconds: float, now: float = 0.0) -> None:
    end = now + seconds
    while now < end:
        desk.give(now)
        now = min(max(desk.next_at, now + 0.03), end)


def granted(desk: Desk) -> dict[int, int]:
    return {run.pid: run.granted_requests for run in desk.report()}


def test_two_runs_share_by_halves_however_many_workers_each_has() -> None:
    desk = make_desk()
    attach(desk, 2, 6_000)
    join(desk, b"a", 0)
    need(desk, b"a", 0, [0] * 10_000)
    for slot in range(7):
        peer = b"b%d" % slot
        join(desk, peer, slot, run=2)
        need(desk, peer, 0, [0] * 10_000)
    saturate(desk, 20.0)
    each = granted(desk)
    assert each[1] == pytest.approx(each[2], abs=12)
    assert sum(each.values()) == pytest.approx(2_000, rel=0.02)


def test_a_run_of_three_times_the_weight_gets_three_times_as_much() -> None:
    desk = make_desk()
    attach(desk, RUN, 6_000, share=3.0)
    attach(desk, 2, 6_000)
    for run, peer in ((1, b"a"), (2, b"b")):
        join(desk, peer, 0, run=run)
        need(desk, peer, 0, [0] * 10_000)
    saturate(desk, 20.0)
    each = granted(desk)
    assert each[1] == pytest.approx(3 * each[2], abs=20)


def test_what_one_run_does_not_want_the_other_gets() -> None:
    desk = make_desk()
    attach(desk, 2, 6_000, share=100.0)
    join(desk, b"a", 0)
    join(desk, b"b", 0, run=2)
    need(desk, b"a", 0, [0] * 10_000)
    now = 0.0
    for second in range(20):
        need(desk, b"b", second * 5, [0] * 5, now)
        saturate(desk, 1.0, now)
        now += 1.0
    each = granted(desk)
    assert each[2] == 100
    assert sum(each.values()) == pytest.approx(2_000, rel=0.02)


def test_the_lowest_declared_limit_holds_and_who_declared_what_is_known() -> None:
    desk = make_desk(rpm=6_000)
    attach(desk, 2, 3_000, 50_000)
    rpm, tpm, *_ = desk.bounds(0.0)
    assert rpm == (3_000, 3_000, "run 2", 6_000, "run 1", 0)
    assert tpm == (50_000, 50_000, "run 2", 50_000, "run 2", 0)
    desk.detach(2, 1.0)
    assert desk.bounds(1.0)[:2] == ((6_000, 6_000, "run 1", 6_000, "run 1", 0), (0, 0, "", 0, "", 0))


def test_nothing_is_granted_to_workers_of_a_run_that_has_not_attached() -> None:
    desk = make_desk()
    join(desk, b"b", 0, run=2)
    need(desk, b"b", 0, [0])
    assert desk.give(1.0) == []
    attach(desk, 2, 60, now=1.0)
    assert [peer for peer, _ in desk.give(2.0)] == [b"b"]


def test_the_workers_of_a_run_that_is_gone_are_forgotten_with_their_queues() -> None:
    desk = make_desk()
    attach(desk, 2, 6_000)
    join(desk, b"b", 0, run=2)
    need(desk, b"b", 0, [0] * 50)
    desk.detach(2, 0.0)
    assert (desk.waiting, desk.knows(b"b"), desk.runs) == (0, False, {1})
    assert desk.give(5.0) == []


def test_after_a_restart_the_limits_of_before_hold_until_all_have_come_back() -> None:
    desk = Desk(Quota(rpm=600, tpm=None, now=0.0), epoch=7, hold_until=5.0)
    attach(desk, 1, 6_000)
    assert desk.bounds(4.9)[0].limit == 600
    attach(desk, 2, 900, now=1.0)
    assert desk.bounds(4.9)[0].limit == 600
    assert desk.bounds(5.0)[0].limit == 900


# --- what the endpoint says ---------------------------------------------------------------------------------


def observe(desk: Desk, limits: Rates, used: Rates = NO_RATES, now: float = 0.0) -> Rates:
    return desk.observe(Observed(limits=limits, used=used), now)


def test_the_endpoints_limit_lowers_a_declared_one_and_never_raises_it() -> None:
    desk = make_desk(rpm=6_000)
    observe(desk, Rates(rpm=600))
    assert desk.bounds(0.0).rates == Rates(600)
    observe(desk, Rates(rpm=60_000))
    assert desk.bounds(0.0).rates == Rates(6_000)


def test_where_nothing_is_declared_the_endpoints_limits_hold_and_are_followed_both_ways() -> None:
    desk = make_desk(rpm=None)
    for limits in (Rates(600, 9_000), Rates(300, 9_000), Rates(1_200, 0, 5_000, 70)):
        observe(desk, limits)
    assert desk.bounds(0.0).rates == Rates(1_200, 9_000, 5_000, 70)  # 0 says nothing new


def test_what_our_own_ledger_explains_is_nobody_elses() -> None:
    desk = make_desk(rpm=600)
    join(desk, b"a", 0)
    need(desk, b"a", 0, [0] * 100)
    saturate(desk, 12.0)
    sent = desk.granted_requests
    assert observe(desk, Rates(600), Rates(sent), 12.0) == NO_RATES
    assert observe(desk, Rates(600), Rates(sent + 50), 12.0) == Rates(50)
    assert observe(desk, Rates(600), Rates(sent + 50), 12.0) == NO_RATES


def test_what_others_use_is_left_to_them() -> None:
    desk = make_desk(rpm=600)
    join(desk, b"a", 0)
    need(desk, b"a", 0, [0] * 2_000)
    observe(desk, Rates(600), Rates(500))
    saturate(desk, 59.0)
    assert desk.granted_requests == 100


def test_input_and_output_are_limited_apart() -> None:
    desk = make_desk(rpm=None)
    observe(desk, Rates(input_tpm=6_000, output_tpm=600))
    join(desk, b"a", 0)
    desk.need(b"a", Need(0, [110] * 1_000, 0, 0, 0, [100, 10] * 1_000), 0.0)
    saturate(desk, 30.0)
    assert desk.granted_requests == pytest.approx(30, abs=2)  # 600 / 10 a minute
    with pytest.raises(Unwanted, match="of all calls or of none"):
        desk.need(b"a", Need(1_000, [110] * 3, 0, 0, 0, [100, 10]), 0.0)
