"""What a seed decides before its world begins: how large it is, and what will go wrong when.

Rules of this file:
1. A kind of world is drawn the same way for ever: a seed that is kept names its kind, and means what it meant. A world that
   does more is a new kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from engine.core.errors import ErrorKind
from engine.limiter.client import AWAY_S, LOOK_S

ROLES = ("worker", "worker", "limiter", "coordinator")
EVERY_WORKER = "every worker"
FOR_EVER_S = 1e9
# Permits were granted in windows of the whole period. One may be used so much later: its frame was lost and the next grant
# says the same (a beat of the limiter's later), or its worker was stopped for less than it notices (``limiter.client``).
LATE_S = LOOK_S + AWAY_S + 0.15
ILLNESSES = (
    ErrorKind.SERVER_ERROR,
    ErrorKind.OVERLOADED,
    ErrorKind.CONNECT_REFUSED,
    ErrorKind.CONNECTION_RESET,
    ErrorKind.TIMEOUT,
    ErrorKind.RATE_LIMITED,
    ErrorKind.UNAUTHORISED,
)


@dataclass(frozen=True)
class Illness:
    """An endpoint fails every call in this way, from one moment to another."""

    kind: ErrorKind
    since: float
    until: float


@dataclass(frozen=True)
class Place:
    """One endpoint. ``rpm`` 0: no limit."""

    name: str
    url: str
    rpm: int
    weight: float = 1.0
    illness: Illness | None = None


@dataclass(frozen=True)
class StepShape:
    """One step of several. ``takes``: the earlier steps whose results it names; ``place``: the endpoint that it asks."""

    name: str
    takes: tuple[str, ...]
    place: int
    is_call: bool = False
    is_for_odd_rows: bool = False


@dataclass(frozen=True)
class Freeze:
    """A process, or every worker, is stopped for a while.

    ``is_believed_dead``: a kill meanwhile is taken for done, and is not.
    """

    at: float
    role: str
    for_s: float
    is_believed_dead: bool = False


@dataclass(frozen=True)
class Shape:
    """See the module. Times are seconds since the world began."""

    kind: str
    rows: int
    procs: int
    places: tuple[Place, ...]
    period_s: float  # of the quotas: 60 s are long to wait
    storm_s: float
    deaths: int
    calm_s: float  # from then on nothing goes wrong
    ends_in_s: float  # from then on: a run that takes longer hangs
    roles: tuple[str, ...] = ROLES
    freezes: tuple[Freeze, ...] = ()
    words: tuple[tuple[float, str], ...] = ()  # to ``engine ctl``, or "interrupt"
    is_disk_slow: bool = False
    disk_rooms: tuple[int, ...] = ()  # the first starts find a disk that so many commits fit on
    late_s: float = 0.0  # so old a permit may be when it is used
    doubles: bool = False
    reorders: bool = False
    steps: tuple[StepShape, ...] = ()  # what each row goes through, if that is more than one
    part_bytes: int = 0  # more of finished steps does not go into one message; 0: as the engine has it
    lookup_s: float = 0.0  # what is looked up in the store for a lease takes up to so long

    @property
    def is_first_kind(self) -> bool:
        """Whether edges are scripted as they were at first."""
        return self.kind == "one endpoint"

    @property
    def may_stop(self) -> bool:
        """Whether a run may stop in order before its last row."""
        stops = any(word in ("drain", "interrupt") for _, word in self.words)
        return stops or bool(self.disk_rooms) or self.is_refused

    @property
    def is_refused(self) -> bool:
        """Whether for a while no endpoint takes the key, or not the one that a step needs."""
        illnesses = [one.illness for one in self.places]
        enough = any if self.steps else all  # no other place does a step's work
        return enough(ill is not None and ill.kind is ErrorKind.UNAUTHORISED for ill in illnesses)


def _one_endpoint(random: Random) -> Shape:
    rows = random.choice((10, 30, 60))
    rpm = random.choice((0, 600, 3_000))
    procs = random.choice((1, 2, 3))
    storm_s = random.choice((2.0, 6.0, 15.0))
    return Shape(
        kind="one endpoint", rows=rows, procs=procs, period_s=60.0,
        places=(Place("", "http://127.0.0.1:9", rpm),),
        storm_s=storm_s, deaths=random.choice((0, 1, 3, 6)), calm_s=0.0, ends_in_s=900.0,
    )  # fmt: skip


def _wide(random: Random) -> Shape:
    rows = random.choice((10, 25, 50))
    procs = random.choice((1, 2, 3))
    storm_s = random.choice((2.0, 6.0, 12.0))
    places = _places(random, storm_s)
    freezes = _freezes(random, storm_s)
    words = _words(random, storm_s, places)
    rooms = tuple(random.randint(0, 25) for _ in range(random.choice((0, 0, 0, 1, 2))))
    ills = [one.illness.until for one in places if one.illness is not None and one.illness.until < FOR_EVER_S]
    return Shape(
        kind="wide", rows=rows, procs=procs, period_s=12.0, places=places, storm_s=storm_s,
        deaths=random.choice((0, 1, 3, 6)), freezes=freezes, words=words,
        late_s=LATE_S,
        calm_s=max([storm_s, *ills, *(one.at + one.for_s for one in freezes), *(at for at, _ in words)]),
        ends_in_s=150.0,
        is_disk_slow=random.random() < 0.25,
        disk_rooms=rooms,
        doubles=random.random() < 0.25,
        reorders=random.random() < 0.25,
    )  # fmt: skip


def _places(random: Random, storm_s: float) -> tuple[Place, ...]:
    count = random.choice((1, 1, 2, 3))
    ill = random.randrange(count) if random.random() < 0.5 else -1
    places = []
    for number in range(count):
        illness = None
        if number == ill:
            since = random.uniform(0.0, storm_s)
            # With one endpoint a run waits for it, and gives up on one that never answered.
            lasts_s = random.choice((2.0, 8.0, FOR_EVER_S if count > 1 else 4.0))
            illness = Illness(random.choice(ILLNESSES), since, since + lasts_s)
        rpm = random.choice((0, 24, 60, 240))
        weight = 0.0 if number and random.random() < 0.3 else random.choice((1.0, 1.0, 3.0))
        name = "abc"[number]
        places.append(Place(name if count > 1 else "", f"http://{name}.example", rpm, weight, illness))
    return tuple(places)


def _freezes(random: Random, storm_s: float) -> tuple[Freeze, ...]:
    freezes = []
    for _ in range(random.choice((0, 0, 1, 2))):
        role = random.choice((*ROLES, EVERY_WORKER))
        # A worker that has been silent for 20 s is replaced.
        for_s = random.choice((0.5, 4.0, 23.0)) if role == "worker" else random.choice((0.5, 4.0))
        freezes.append(Freeze(random.uniform(0.3, storm_s), role, for_s, random.random() < 0.5))
    return tuple(freezes)


def _words(random: Random, storm_s: float, places: tuple[Place, ...]) -> tuple[tuple[float, str], ...]:
    words = []
    for _ in range(random.choice((0, 0, 1, 2))):
        at = random.uniform(0.3, storm_s)
        what = random.choice(("pause", "rpm", "rpm", "in-flight", "drain", "interrupt"))
        if what == "pause":
            words += [(at, "pause"), (at + random.choice((0.5, 4.0)), "resume")]
        elif what == "rpm":
            name = random.choice(places).name
            limit = random.choice((18, 40, 120))
            words.append((at, f"set {name}.rpm={limit}" if name else f"set rpm={limit}"))
        elif what == "in-flight":
            words.append((at, f"set in-flight={random.choice((3, 9, 40))}"))
        else:
            words.append((at, what))
    return tuple(words)


def _saturated(random: Random) -> Shape:
    """Less quota than work, and processes that are stopped while permits are under way to them."""
    freezes = tuple(
        Freeze(
            random.uniform(3.0, 8.0),
            random.choice((EVERY_WORKER, EVERY_WORKER, "limiter")),
            random.choice((1.5, 4.0)),
        )
        for _ in range(random.choice((1, 2)))
    )
    return Shape(
        kind="saturated", rows=50, procs=random.choice((2, 3, 4)), period_s=12.0,
        places=(Place("", "http://a.example", random.choice((24, 36))),),
        storm_s=8.0, deaths=random.choice((0, 1, 2)), roles=("limiter", "worker"),
        freezes=freezes, calm_s=12.0, ends_in_s=150.0, late_s=LATE_S,
    )  # fmt: skip


def _steps(random: Random) -> Shape:
    """Rows go through several steps, side by side and one after the other; some of them are functions."""
    storm_s = random.choice((2.0, 6.0, 12.0))
    places = tuple(_station(random, storm_s, "abc"[number]) for number in range(random.choice((1, 2, 3))))
    steps: list[StepShape] = []
    for name in "klmno"[: random.choice((2, 3, 4, 5))]:
        takes = tuple(one.name for one in steps if random.random() < 0.5)
        place, is_call = random.randrange(len(places)), bool(steps) and random.random() < 0.3
        steps.append(StepShape(name, takes, place, is_call, random.random() < 0.15))
    freezes = _freezes(random, storm_s)
    asking = tuple(replace(places[one.place], name=one.name) for one in steps if not one.is_call)
    words = _words(random, storm_s, asking)
    ills = [one.illness.until for one in places if one.illness is not None]
    return Shape(
        kind="steps", rows=random.choice((8, 16, 32)), procs=random.choice((1, 2, 3)), period_s=12.0,
        places=places, storm_s=storm_s, deaths=random.choice((0, 1, 3, 6)), freezes=freezes, words=words, late_s=LATE_S,
        calm_s=max([storm_s, *ills, *(one.at + one.for_s for one in freezes), *(at for at, _ in words)]),
        ends_in_s=240.0,
        is_disk_slow=random.random() < 0.25,
        disk_rooms=tuple(random.randint(0, 40) for _ in range(random.choice((0, 0, 0, 1, 2)))),
        doubles=random.random() < 0.25, reorders=random.random() < 0.25,
        steps=tuple(steps), lookup_s=random.choice((0.0, 0.05, 1.0)), part_bytes=random.choice((0, 0, 150)),
    )  # fmt: skip


def _station(random: Random, storm_s: float, name: str) -> Place:
    """An endpoint of steps: whatever ails it ends, for nobody does its work meanwhile."""
    illness = None
    if random.random() < 0.3:
        since = random.uniform(0.0, storm_s)
        illness = Illness(random.choice(ILLNESSES), since, since + random.choice((2.0, 4.0, 8.0)))
    return Place("", f"http://{name}.example", random.choice((0, 0, 60, 240)), illness=illness)


KINDS: dict[str, Callable[[Random], Shape]] = {
    "one endpoint": _one_endpoint,
    "wide": _wide,
    "saturated": _saturated,
    "steps": _steps,
}


def shape_of(seed: int, kind: str) -> Shape:
    """What this seed is in this kind of world."""
    return KINDS[kind](Random(f"shape {seed}"))
