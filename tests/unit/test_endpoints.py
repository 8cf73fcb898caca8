"""A job's table of endpoints: what it may say, and what is refused before anything is sent."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.config import Job, jobs_of, rates_of
from engine.core.errors import UsageError
from engine.core.quota import Rates
from engine.credentials import Secret
from engine.settings import Loaded, load

EAST = {"name": "east", "base_url": "http://127.0.0.1:1/v1"}
WEST = {"name": "west", "base_url": "http://127.0.0.1:2/v1"}


def loaded(
    folder: Path, *tables: dict[str, Any], environment: dict[str, str] | None = None, **settings: Any
) -> Loaded:
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for table in tables:
        lines += ["[[endpoints]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    path = folder / "job.toml"
    path.write_text("\n".join(lines))
    flags = {"input": "in.jsonl", "output": "out.jsonl", "job": str(path)}
    if "url" not in settings and not any("url" in table for table in tables):
        flags |= {"prompt": "{{ text }}"}
    return load(flags, environment or {})


def test_what_an_endpoint_leaves_out_is_as_the_job_has_it(tmp_path: Path) -> None:
    made = loaded(
        tmp_path, EAST, {**WEST, "model": "n", "rpm": 5, "tpm": "auto"}, model="m", rpm=100, max_tokens=7
    )
    east, west = jobs_of(made.job)
    assert (east.target.model, west.target.model) == ("m", "n")
    assert (rates_of(east), rates_of(west)) == (Rates(rpm=100), Rates(rpm=5))
    assert (east.learn_limits, west.learn_limits) == (False, True)
    assert east.target.max_tokens == west.target.max_tokens == 7
    assert [one.weight for one in made.job.endpoints] == [1.0, 1.0]
    assert msgspec.json.decode(msgspec.json.encode(made.job), type=Job) == made.job


def test_a_job_without_a_table_has_one_endpoint_itself(tmp_path: Path) -> None:
    job = loaded(tmp_path, model="m", base_url="http://127.0.0.1:1/v1").job
    assert jobs_of(job) == (job,)


def test_what_must_not_go_where_rows_say_is_refused(tmp_path: Path) -> None:
    plain = {"provider": "http", "url": " {{ url }}/x"}
    told = {"MY_KEY": "sk-canary"}
    made = loaded(tmp_path, **plain, header=["X-A: b", "X-B: {{ c }}"], rpm=60)
    assert made.auth == ((),)
    for more, says in (
        ({"header": ["X-A: b", "X-Key: Bearer ${MY_KEY}"]}, "the header X-Key, which names a secret"),
        ({"api_key_env": "MY_KEY"}, "the key in MY_KEY"),
        ({"rpm": "auto"}, "cannot be learnt"),
    ):
        for environment in (told, {}):
            with pytest.raises(UsageError, match=says) as raised:
                loaded(tmp_path, **plain, environment=environment, **more)
            assert "canary" not in str(raised.value)
    with pytest.raises(UsageError, match="each endpoint needs an address of its own"):
        loaded(
            tmp_path, {"name": "a", **plain}, {"name": "b", "provider": "http", "url": "http://127.0.0.1:9/"}
        )


def test_each_endpoint_has_its_own_key(tmp_path: Path) -> None:
    tables = [{**EAST, "api_key_env": "A"}, {**EAST, "name": "again", "api_key_env": "B"}]
    made = loaded(tmp_path, *tables, model="m", environment={"A": "key-a", "B": "key-b"})
    assert [headers[0].secrets for headers in made.auth] == [(Secret("key-a"),), (Secret("key-b"),)]
    assert "key-a" not in repr(made)
    with pytest.raises(UsageError, match="variable B is not set"):
        loaded(tmp_path, *tables, model="m", environment={"A": "key-a"})


def test_two_endpoints_that_are_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="east and again are one and the same"):
        loaded(tmp_path, EAST, WEST, {**EAST, "name": "again"}, model="m")
    loaded(tmp_path, EAST, {**EAST, "name": "again", "model": "n"}, model="m")


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (("70%", "20%"), "add up to 90 %, not to 100 %"),
        ((0, 0), "add up to nothing"),
        (("70%", 3), "for all of them or for none"),
        ((-1, 2), "weight -1 cannot be used"),
        (("much", 2), "weight 'much' cannot be used"),
        ((True, 2), "weight True cannot be used"),
        (("nan%", 2), "cannot be used"),
    ],
)
def test_weights_that_do_not_add_up_are_refused(tmp_path: Path, weights: tuple[Any, ...], says: str) -> None:
    tables = [{**table, "weight": weight} for table, weight in zip((EAST, WEST), weights, strict=True)]
    with pytest.raises(UsageError, match=says):
        loaded(tmp_path, *tables, model="m")


def test_weights_are_numbers_or_shares(tmp_path: Path) -> None:
    for given, expected in (((3, 0.5), [3.0, 0.5]), (("75%", "25%"), [75.0, 25.0]), ((1, 0), [1.0, 0.0])):
        tables = [{**table, "weight": weight} for table, weight in zip((EAST, WEST), given, strict=True)]
        assert [one.weight for one in loaded(tmp_path, *tables, model="m").job.endpoints] == expected


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"name": "west"}, "Two endpoints have the name 'west'"),
        ({"name": "a b"}, "name has letters"),
        ({"name": ""}, "name has letters"),
        ({"rpm": 0}, "Endpoint 2: rpm 0 cannot be used"),
        ({"rpm": "fast"}, "Endpoint 2: rpm 'fast' cannot be used"),
        ({"prompt": "x"}, "unknown setting 'prompt'"),
        ({"name": "x", "provider": "http"}, "Endpoint x: --provider http and --url belong together"),
        ({"provider": "nobody"}, "no provider named 'nobody'"),
        ({"provider": "http", "url": "http://127.0.0.1/x"}, "cannot be in one job"),
    ],
)
def test_what_cannot_be_an_endpoint_is_refused_by_name(
    tmp_path: Path, table: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        loaded(tmp_path, WEST, table, model="m")


def test_an_endpoint_without_any_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Endpoint east: There is no model"):
        loaded(tmp_path, EAST, {**WEST, "model": "m"})


@pytest.mark.parametrize("value", ["x", 5, [1, 2], []])
def test_what_is_no_table_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UsageError, match="endpoints"):
        loaded(tmp_path, model="m", endpoints=value)


def test_plain_http_endpoints_have_urls_of_their_own(tmp_path: Path) -> None:
    tables = [
        {"name": name, "url": f"http://127.0.0.1:{port}/{{{{ id }}}}"} for name, port in (("a", 1), ("b", 2))
    ]
    jobs = jobs_of(loaded(tmp_path, *tables, provider="http").job)
    assert [job.step.url for job in jobs] == ["http://127.0.0.1:1/{{ id }}", "http://127.0.0.1:2/{{ id }}"]
    assert {job.step.kind for job in jobs} == {"request"}


def test_a_region_more_is_the_same_job_and_another_model_is_not(tmp_path: Path) -> None:
    one = loaded(tmp_path, EAST, model="m").job.identity()
    assert loaded(tmp_path, WEST, EAST, model="m", rpm=5).job.identity() == one
    assert loaded(tmp_path, EAST, {**WEST, "model": "n"}, model="m").job.identity() != one
    assert loaded(tmp_path, EAST, model="m", temperature=1).job.identity() != one
    json.dumps(one)


def test_an_endpoint_with_an_address_of_its_own_takes_no_others_key(tmp_path: Path) -> None:
    environment = {"OPENAI_API_KEY": "usual-canary", "OURS": "ours-canary"}
    own = {"name": "own", "base_url": "http://127.0.0.1:1/v1"}
    made = loaded(tmp_path, {"name": "first"}, own, model="m", environment=environment)
    assert [len(headers) for headers in made.auth] == [1, 0]
    made = loaded(tmp_path, {"name": "first"}, own, model="m", api_key_env="OURS", environment=environment)
    assert made.auth[0][0].secrets == (Secret("ours-canary"),)
    assert made.auth[1] == ()
    abroad = {"name": "abroad", "base_url": "https://api.example.com/v1"}
    with pytest.raises(UsageError, match="takes no other's key"):
        loaded(tmp_path, {"name": "first"}, abroad, model="m", environment=environment)


def test_a_secret_header_goes_to_the_endpoint_that_names_it(tmp_path: Path) -> None:
    environment = {"A": "canary-a", "B": "canary-b"}
    a: dict[str, Any] = {"name": "a", "url": "http://127.0.0.1:1/x", "headers": ["X-Key: ${A}", "X-Plain: 1"]}
    b: dict[str, Any] = {"name": "b", "url": "http://127.0.0.1:2/x", "headers": ["X-Key: ${B}"]}
    made = loaded(tmp_path, a, b, provider="http", environment=environment)
    assert [headers[0].reveal() for headers in made.auth] == ["canary-a", "canary-b"]
    assert [job.step.headers for job in jobs_of(made.job)] == [(("X-Plain", "1"),), ()]
    del b["headers"]
    with pytest.raises(UsageError, match="give each such endpoint headers of its own"):
        loaded(tmp_path, a, b, provider="http", header=["X-Key: ${A}"], environment=environment)


def test_a_flag_that_an_endpoint_overrules_is_refused_instead_of_ignored(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text('model = "m"\nprompt = "x"\n[[endpoints]]\nname = "east"\nrpm = 5\n')
    flags = {"input": "in.jsonl", "output": "out.jsonl", "job": str(tmp_path / "job.toml")}
    for given, environment in (({"rpm": "9"}, {}), ({}, {"ENGINE_RPM": "9"})):
        with pytest.raises(UsageError, match="--rpm is given, and endpoint east has one of its own"):
            load(flags | given, {"OPENAI_API_KEY": "k", **environment})
    with (tmp_path / "job.toml").open("a") as file:
        file.write('headers = ["X-A: 1"]\n')
    with pytest.raises(UsageError, match="--header is given, and endpoint east"):
        load(flags | {"header": ["X-B: 2"]}, {"OPENAI_API_KEY": "k"})
    assert load(flags | {"tpm": "9"}, {"OPENAI_API_KEY": "k"}).job.endpoints[0].tpm == 9
