"""One worker's part of a load test on a virtual clock: when it sends, what it counts, how it ends."""

import pytest
from clockwork import Clockwork
from drives import OK, Scene

from engine.core.errors import ErrorKind
from engine.core.model import Call, Failure, Reply
from engine.schedules.base import Schedule
from engine.schedules.profile import steady
from engine.worker.load.exchanges import Exchange


def even(rate: float, duration_s: float | None = None, requests: int | None = None) -> Schedule:
    return Schedule("constant", steady(rate), duration_s=duration_s, requests=requests)


def test_requests_leave_at_their_time_whatever_becomes_of_earlier_ones(scene: Scene) -> None:
    scene.wire._answer = lambda number: (0.5 if number % 2 else 0.001, OK)
    scene.drive(even(100, duration_s=1.0))
    scene.clock.run(scene.start + 10)
    assert scene.wire.sent_at == pytest.approx([scene.start + number / 100 for number in range(100)])
    assert scene.ends == 1
    assert (scene.measures.counts.sent, scene.measures.counts.completed) == (100, 100)


def test_the_parts_of_two_workers_are_the_whole(scene: Scene) -> None:
    for worker in range(2):
        scene.drive(even(100, duration_s=1.0), worker=worker, workers=2)
    scene.clock.run(scene.start + 10)
    assert sorted(scene.wire.sent_at) == pytest.approx([scene.start + number / 100 for number in range(100)])


def test_a_server_that_stands_still_shows_in_response_times_as_the_schedule_has_it(scene: Scene) -> None:
    """Two seconds of 30 at 100 a second: what was due within them waits for their end."""

    def answer(number: int) -> tuple[float, Reply | Failure]:
        since = number / 100
        return (max(0.001, 12.0 - since) if 10.0 <= since < 12.0 else 0.001), OK

    scene.wire._answer = answer
    scene.drive(even(100, duration_s=30.0))
    scene.clock.run(scene.start + 60)
    p99 = scene.measures.histograms["response_time"].quantile_us(0.99)
    assert p99 is not None
    # 200 of 3,000 wait, evenly from 2 s down; the longest 30 of them are the last hundredth: 2 s less 0.3 s.
    assert p99 / 1e6 == pytest.approx(1.7, rel=0.03)


def test_a_client_that_stands_still_is_late_and_response_times_show_it_while_latencies_do_not(
    scene: Scene,
) -> None:
    drive = scene.drive(even(100, duration_s=4.0))
    scene.clock.run(scene.start + 1.0)
    scene.clock.spend(2.0)  # stopped
    scene.clock.run(scene.start + 20)
    counts = scene.measures.counts
    assert (counts.sent, counts.completed, counts.dropped) == (400, 400, 0)
    assert counts.late == pytest.approx(200, abs=3)
    latency, response = (
        scene.measures.histograms[name].quantile_us(0.9) for name in ("latency", "response_time")
    )
    assert latency is not None and response is not None
    assert latency < 20_000 < 1_500_000 < response
    assert drive.in_flight == 0


def test_what_is_late_is_dropped_where_that_was_asked_for(scene: Scene) -> None:
    scene.drive(even(100, duration_s=4.0), drops_late=True)
    scene.clock.run(scene.start + 1.0)
    scene.clock.spend(2.0)
    scene.clock.run(scene.start + 20)
    counts = scene.measures.counts
    assert counts.intended == 400
    assert counts.dropped == pytest.approx(199, abs=2)
    assert counts.sent + counts.dropped == 400
    assert counts.late == 0
    times = scene.measures.histograms["response_time"]
    assert times.count_at_most(30_000) >= times.count - 1, "but for the one that was under way"


def test_what_is_not_sent_when_the_time_is_up_is_dropped_and_counted(scene: Scene) -> None:
    scene.wire.costs_s = 0.02  # twice what there is time for
    scene.drive(even(100, duration_s=2.0))
    scene.clock.run(scene.start + 20)
    counts = scene.measures.counts
    assert counts.intended == 200
    assert counts.sent == pytest.approx(100, abs=3)
    assert counts.sent + counts.dropped == 200
    assert max(scene.wire.sent_at) <= scene.start + 2.0
    assert scene.ends == 1


def test_the_last_request_is_sent_though_its_alarm_rings_a_little_after_the_end(scene: Scene) -> None:
    scene.drive(even(1000, duration_s=1.0))
    scene.clock.run(scene.start + 0.9985)
    scene.clock.spend(0.004)
    scene.clock.run(scene.start + 2)
    assert scene.measures.counts.sent == 1000
    assert scene.measures.counts.dropped == 0


def test_a_test_that_ends_with_its_count_sends_all_of_them_however_late(scene: Scene) -> None:
    scene.wire.costs_s = 0.02
    scene.drive(even(100, requests=50))
    scene.clock.run(scene.start + 20)
    assert (scene.measures.counts.sent, scene.measures.counts.dropped, scene.ends) == (50, 0, 1)


def test_requests_of_the_warm_up_are_sent_and_are_in_no_figure(scene: Scene) -> None:
    scene.drive(even(100, duration_s=2.0), warmup_s=1.0)
    scene.clock.run(scene.start + 20)
    counts = scene.measures.counts
    assert len(scene.wire.sent_at) == 200
    assert (counts.intended, counts.completed, counts.warm_up) == (100, 100, 100)
    assert min(scene.measures.seconds) == 1


def test_no_more_are_under_way_than_the_system_allows_and_what_waits_is_counted(scene: Scene) -> None:
    scene.wire._answer = lambda number: (1.0, OK)
    drive = scene.drive(even(100, duration_s=2.0), in_flight_max=20)
    scene.clock.run(scene.start + 20)
    assert drive.in_flight_peak == 20
    assert drive.held_back > 0
    counts = scene.measures.counts
    assert counts.sent + counts.dropped == 200
    assert scene.ends == 1


def test_a_closed_loop_keeps_its_number_under_way_and_sends_exactly_what_was_asked(scene: Scene) -> None:
    drive = scene.drive(None, own=range(1, 100, 3), concurrency=4)
    scene.clock.run(scene.start + 20)
    assert drive.in_flight_peak == 4
    assert scene.measures.counts.completed == 33
    assert scene.measures.counts.late == 0
    assert scene.ends == 1


def test_a_closed_loop_ends_with_its_time(scene: Scene) -> None:
    scene.drive(None, concurrency=5, duration_s=1.0)
    scene.clock.run(scene.start + 20)
    assert scene.measures.counts.completed == pytest.approx(500, abs=6)
    assert max(scene.wire.sent_at) < scene.start + 1.0
    assert scene.ends == 1


def test_a_closed_loop_with_more_slots_than_requests_ends(scene: Scene) -> None:
    scene.drive(None, own=range(3), concurrency=10)
    scene.clock.run(scene.start + 5)
    assert (scene.measures.counts.completed, scene.ends) == (3, 1)


def test_a_failure_is_counted_once_and_never_tried_again(scene: Scene) -> None:
    def answer(number: int) -> tuple[float, Reply | Failure]:
        kinds = (Reply(500, {}, b""), Failure(ErrorKind.CONNECTION_RESET, "reset"), OK)
        return 0.001, kinds[number % 3]

    scene.wire._answer = answer
    scene.drive(even(100, requests=90))
    scene.clock.run(scene.start + 20)
    assert len(scene.wire.sent_at) == 90
    assert scene.measures.errors == {"http_5xx": 30, "reset": 30}
    assert scene.measures.histograms["latency"].count == 30


def test_who_is_halted_sends_nothing_more_and_what_was_under_way_is_cancelled(scene: Scene) -> None:
    scene.wire._answer = lambda number: (5.0, OK)
    drive = scene.drive(even(10, duration_s=100.0))
    scene.clock.run(scene.start + 1.05)
    drive.halt()
    sent = len(scene.wire.sent_at)
    scene.clock.run(scene.start + 200)
    assert len(scene.wire.sent_at) == sent == 11
    assert scene.measures.errors == {"cancelled": 11}
    assert scene.measures.counts.dropped == 0
    assert scene.ends == 1


def test_who_is_halted_before_the_first_request_ends_at_once(scene: Scene) -> None:
    drive = scene.drive(even(10, duration_s=100.0))
    drive.halt()
    scene.clock.run(scene.clock.now)
    assert (scene.ends, scene.wire.sent_at) == (1, [])


def test_the_cpu_and_the_lag_of_a_worker_are_those_of_its_sending(scene: Scene) -> None:
    """Replies that trickle in later, and the warm-up before, would thin out what it did meanwhile."""
    scene.wire._answer = lambda number: (30.0, OK)
    drive = scene.drive(even(100, duration_s=4.0), warmup_s=1.0)
    scene.clock.call_at(scene.start + 0.5, lambda: scene.clock.spend(0.3))  # within the warm-up
    scene.clock.run(scene.start + 100)
    assert drive.sending_s == pytest.approx(3.0, abs=0.05)
    assert drive.loop_lag.max_us < 100_000
    assert drive.loop_lag.count == pytest.approx(150, abs=10)


def test_a_worker_that_is_far_too_slow_ends_on_time_and_counts_what_it_left(scene: Scene) -> None:
    scene.wire.costs_s = 0.001
    scene.drive(even(5_000_000, duration_s=1.0), left_after=lambda at_s: round(5_000_000 * (1.0 - at_s)))
    scene.clock.run(scene.start + 2)
    counts = scene.measures.counts
    assert scene.ends == 1
    assert counts.sent == pytest.approx(1_000, abs=50)
    assert counts.intended == pytest.approx(5_000_000, rel=0.001)


def test_a_closed_loop_beyond_what_the_system_allows_says_so(scene: Scene) -> None:
    drive = scene.drive(None, own=range(100), concurrency=50, in_flight_max=20)
    scene.clock.run(scene.start + 5)
    assert (drive.in_flight_peak, drive.held_back, scene.measures.counts.completed) == (20, 30, 100)


def test_everything_that_waited_for_room_is_counted_as_held_back(scene: Scene) -> None:
    scene.wire._answer = lambda number: (1.0, OK)
    drive = scene.drive(even(100, requests=100), in_flight_max=50)
    scene.clock.run(scene.start + 20)
    assert drive.held_back == pytest.approx(50, abs=2)


class Flood(Exchange):
    """Each of its replies brings 1,000 bytes before it fails."""

    def begin(self, call: Call, at_s: float, intended: float) -> None:
        super().begin(call, at_s, intended)
        self.streamed_bytes = 1_000


class Desk:
    """Stands where the quota does: permits as they are told."""

    def __init__(self) -> None:
        self.waiting = 0
        self.dropped = 0

    def need(self, charge: object) -> None:
        self.waiting += 1

    def settle(self, *arguments: object, age_s: float) -> None:
        pass

    def drop_queue(self) -> None:
        self.dropped = self.waiting


def test_requests_wait_for_permits_and_their_response_time_holds_the_wait(scene: Scene) -> None:
    desk = Desk()
    drive = scene.drive(even(10, duration_s=1.0), permits=desk)
    scene.clock.run(scene.start + 0.85)
    assert scene.wire.sent_at == []
    drive.granted(4, 1)
    scene.clock.run(scene.start + 10)
    counts = scene.measures.counts
    assert (counts.sent, counts.dropped, drive.quota_waited, drive.held_back) == (4, 6, 4, 0)
    assert (scene.measures.histograms["response_time"].max_us) == pytest.approx(860_000, rel=0.01)
    assert scene.ends == 1


def test_what_waited_for_room_in_the_warm_up_is_not_told_of_the_window(scene: Scene) -> None:
    scene.wire._answer = lambda number: (0.5 if number < 20 else 0.001, OK)
    drive = scene.drive(even(100, duration_s=2.0), in_flight_max=20, warmup_s=1.0)
    scene.clock.run(scene.start + 10)
    assert drive.in_flight_peak == 20
    assert (drive.held_back, scene.measures.counts.completed) == (0, 100)


def test_what_waited_for_room_after_the_warm_up_is_told_to_the_request(scene: Scene) -> None:
    scene.wire._answer = lambda number: (1.0, OK)
    drive = scene.drive(even(100, requests=100), in_flight_max=50, warmup_s=0.75)
    scene.clock.run(scene.start + 20)
    assert drive.held_back == 25


def test_what_waited_for_permits_in_the_warm_up_is_not_told_of_the_window(scene: Scene) -> None:
    drive = scene.drive(even(10, requests=10), permits=Desk(), warmup_s=0.55)
    scene.clock.run(scene.start + 2.0)
    drive.granted(10, 1)
    scene.clock.run(scene.start + 10)
    assert (scene.measures.counts.warm_up, drive.quota_waited) == (6, 4)


def test_a_test_that_ends_with_its_count_waits_for_all_its_permits(scene: Scene) -> None:
    desk = Desk()
    drive = scene.drive(even(100, requests=10), permits=desk)
    scene.clock.run(scene.start + 50)
    assert (desk.waiting, scene.ends) == (10, 0)
    drive.granted(10, 1)
    scene.clock.run(scene.start + 60)
    assert (scene.measures.counts.completed, scene.measures.counts.dropped, scene.ends) == (10, 0, 1)


def test_a_worker_that_catches_up_reads_replies_in_between(scene: Scene) -> None:
    """A burst of sends is cut, so that what has arrived meanwhile is seen."""
    seen: list[int] = []
    clock: Clockwork = scene.clock
    scene.drive(even(1000, duration_s=1.0))
    clock.call_at(scene.start + 0.5, lambda: clock.spend(0.3))
    clock.call_at(scene.start + 0.6, lambda: seen.append(len(scene.wire.sent_at)))
    clock.run(scene.start + 5)
    assert 500 <= seen[0] <= 700, "what was due meanwhile came after the whole burst"
    assert scene.measures.counts.sent == 1000


@pytest.mark.parametrize(("kind", "counted"), [(ErrorKind.TIMEOUT, 5_000), (ErrorKind.CONNECTION_RESET, 0)])
def test_what_streams_brought_that_did_not_end_by_themselves_is_counted(
    scene: Scene, kind: ErrorKind, counted: int
) -> None:
    scene.wire._answer = lambda number: (0.01, Failure(kind, "it did not end"))
    drive = scene.drive(even(100, requests=5), make_exchange=Flood, warmup_s=0.015)
    scene.clock.run(scene.start + 5)
    assert drive.cut_off_bytes == counted
