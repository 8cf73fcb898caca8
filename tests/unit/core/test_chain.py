"""Which step of a row is next: what waits, what runs side by side, what is spared, what a failure leaves."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.chain import Link, Progress, Shape
from engine.core.errors import UsageError


def link(name: str, takes: str = "", gives: str = "", tests: str = "") -> Link:
    return Link(name, frozenset(takes.split()), tuple((gives or name).split()), frozenset(tests.split()))


def ready(progress: Progress, *columns: str) -> list[str]:
    """All that can begin now, begun."""
    found = []
    while (at := progress.ready(columns)) is not None:
        progress.begin(at)
        found.append(progress.shape.links[at].name)
    return found


PAGE = Shape([link("page", "url", "html"), link("markdown", "html", "text"), link("summary", "text title")])


def test_a_step_waits_for_those_that_give_what_it_takes() -> None:
    progress = Progress(PAGE)
    assert ready(progress, "url", "title") == ["page"]
    progress.finish(0)
    assert ready(progress, "url", "title") == ["markdown"]
    progress.finish(1)
    assert ready(progress, "url", "title") == ["summary"]
    assert not progress.is_over
    progress.finish(2)
    assert ready(progress) == [] and progress.is_over


def test_steps_that_do_not_need_each_other_run_side_by_side() -> None:
    shape = Shape([link("kind", "text"), link("tone", "text"), link("both", "kind tone")])
    progress = Progress(shape)
    assert ready(progress, "text") == ["kind", "tone"]
    progress.finish(1)
    assert ready(progress, "text") == []
    progress.finish(0)
    assert ready(progress, "text") == ["both"]


def test_what_was_finished_before_does_not_run_again() -> None:
    progress = Progress(PAGE, done=0b011)
    assert ready(progress, "url") == ["summary"]


def test_what_takes_from_a_spared_step_is_spared_with_it() -> None:
    progress = Progress(PAGE)
    assert progress.ready(["url"]) == 0
    progress.spare(0)
    assert ready(progress, "url") == []
    assert progress.is_over and progress.spared == 0b111


def test_what_the_row_itself_has_does_not_need_the_step_that_was_spared() -> None:
    progress = Progress(PAGE)
    progress.spare(0)
    assert ready(progress, "url", "html") == ["markdown"]


def test_of_two_ways_to_one_column_either_will_do() -> None:
    shape = Shape([link("short", "text", "kind"), link("long", "text", "kind"), link("last", "kind")])
    progress = Progress(shape)
    assert progress.ready(["text"]) == 0
    progress.spare(0)
    assert ready(progress, "text") == ["long"]
    progress.finish(1)
    assert ready(progress, "text") == ["last"]


def test_a_condition_is_waited_for_and_may_be_about_a_step_that_was_spared() -> None:
    shape = Shape([link("kind", "text"), link("reply", "text", tests="kind")])
    progress = Progress(shape)
    assert progress.ready(["text"]) == 0
    progress.spare(0)
    assert ready(progress, "text") == ["reply"]


def test_what_needs_a_failed_step_does_not_run_and_everything_else_does() -> None:
    shape = Shape([link("a", "text"), link("b", "a"), link("c", "b"), link("d", "text")])
    progress = Progress(shape)
    assert ready(progress, "text") == ["a", "d"]
    progress.fail(0)
    assert ready(progress, "text") == []
    assert not progress.is_over, "d runs"
    progress.finish(3)
    assert ready(progress, "text") == [] and progress.is_over
    assert (progress.failed, progress.done) == (0b0111, 0b1000)


def test_the_input_has_to_have_what_is_used_before_any_step_gives_it() -> None:
    assert PAGE.columns == {"url", "title"}
    assert Shape([link("a", "b"), link("b", "x")]).columns == {"b", "x"}


def test_a_step_and_all_that_comes_to_wait_for_it_are_found_by_name() -> None:
    shape = Shape([link("a"), link("b", "a"), link("c", "x"), link("d", "b")])
    assert shape.names_from("b") == ["b", "d"]
    assert shape.names_from("a") == ["a", "b", "d"]
    with pytest.raises(UsageError, match="no step named 'e'. Known: a, b, c, d"):
        shape.names_from("e")


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="Two steps have the name 'a'"):
        Shape([link("a"), link("a")])


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abcdefx"), max_size=3), st.sampled_from("abcdef")),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_depends_on_whatever_every_row_ends_and_nothing_runs_before_what_it_takes(
    steps: list[tuple[set[str], str]], random: Random
) -> None:
    shape = Shape([Link(str(n), frozenset(takes), (gives,)) for n, (takes, gives) in enumerate(steps)])
    progress = Progress(shape)
    begun: list[int] = []
    running: list[int] = []
    for _ in range(100):
        while (at := progress.ready({"x", "a"})) is not None:
            assert at not in begun
            for name in shape.links[at].takes:
                earlier = [n for n in range(at) if name in shape.links[n].gives]
                assert all((progress.done | progress.spared) >> n & 1 for n in earlier)
            begun.append(at)
            if random.random() < 0.2:
                progress.spare(at)
            else:
                progress.begin(at)
                running.append(at)
        if progress.is_over:
            break
        assert running, "nothing runs and the row is not over"
        at = running.pop(random.randrange(len(running)))
        (progress.fail if random.random() < 0.2 else progress.finish)(at)
    assert progress.is_over
