"""Where each value of a job comes from, and which ones are refused."""

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from engine.config import Job
from engine.core.errors import UsageError
from engine.credentials import Secret, all_secrets, redact
from engine.keys import auth_for
from engine.settings import Loaded, load


def loaded(folder: Path, environment: dict[str, str] | None = None, **flags: Any) -> Loaded:
    source = folder / "in.jsonl"
    source.write_text('{"text": "a"}\n')
    given = {
        "input": str(source),
        "output": str(folder / "out.jsonl"),
        "base_url": "http://127.0.0.1:9/v1",
        "model": "m",
        "prompt": "{{ text }}",
        **flags,
    }
    return load(given, environment or {})


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text("retries = 7\nrpm = 700\ntimeout = 70\n")
    made = loaded(tmp_path, {"ENGINE_RPM": "800", "ENGINE_RETRIES": "8"}, job=str(file), retries="9")
    assert (made.job.retries, made.job.rpm, made.job.timeouts.total_s, made.job.in_flight) == (
        9,
        800,
        70.0,
        4096,
    )
    sources = [made.origins[name].source.split(" ")[0] for name in ("retries", "rpm", "timeout", "in_flight")]
    assert sources == ["flag", "environment", "job", "default"]


def test_an_unknown_setting_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text("retrys = 7\n")
    with pytest.raises(UsageError, match="Did you mean retries"):
        loaded(tmp_path, job=str(file))


def test_files_named_in_a_job_file_are_found_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "p.txt").write_text("Say {{ text }}")
    (folder / "job.toml").write_text('prompt-file = "p.txt"\n')
    assert loaded(tmp_path, job=str(folder / "job.toml"), prompt=None).job.step.prompt == "Say {{ text }}"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"rpm": "0"}, "--rpm"),
        ({"tpm": "automatic"}, "--tpm"),
        ({"share": "0"}, "--share"),
        ({"share": "many"}, "--share"),
        ({"procs": "0"}, "--procs"),
        ({"timeout": "0"}, "--timeout"),
        ({"in_flight": "-3"}, "--in-flight"),
        ({"retries": "many"}, "--retries"),
        ({"messages": "chat"}, "exclude each other"),
        ({"url": "http://127.0.0.1/x", "prompt": None}, "--provider http"),
        ({"provider": "nobody"}, "--provider"),
        ({"endpoint": "nowhere"}, "--endpoint"),
        ({"model": None}, "--model"),
        ({"param": ["novalue"]}, "--param"),
        ({"schema": "no-such-file.json"}, "no-such-file.json"),
        ({"fresh": True, "retry_failed": True}, "--fresh"),
        ({"durability": "never"}, "--durability"),
        ({"max_failures": "200%"}, "--max-failures"),
        ({"output": "out.xyz"}, "out.xyz"),
    ],
)
def test_what_cannot_work_is_refused_with_a_sentence(
    tmp_path: Path, flags: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, **flags)
    assert says in str(caught.value)


def test_auto_learns_limits_and_leaves_given_ones(tmp_path: Path) -> None:
    made = loaded(tmp_path, rpm="auto", tpm="5000").job
    assert (made.rpm, made.tpm, made.learn_limits) == (None, 5_000, True)
    made = loaded(tmp_path, rpm="60", input_tpm="7", output_tpm="8").job
    assert (made.rpm, made.input_tpm, made.output_tpm, made.learn_limits) == (60, 7, 8, False)


def test_a_missing_key_is_refused_for_a_foreign_host_and_not_needed_for_a_local_one(tmp_path: Path) -> None:
    assert loaded(tmp_path).auth == ((),)
    assert loaded(tmp_path, base_url="http://10.0.0.7:8000/v1").auth == ((),)
    with pytest.raises(UsageError, match="OPENAI_API_KEY"):
        loaded(tmp_path, base_url="https://api.example.com/v1")


def test_the_key_comes_from_the_environment_and_is_no_part_of_the_job(tmp_path: Path) -> None:
    made = loaded(
        tmp_path, {"MY_KEY": " sk-canary "}, base_url="https://api.example.com/v1", api_key_env="MY_KEY"
    )
    assert made.auth[0][0].secrets == (Secret("sk-canary"),)
    assert b"canary" not in msgspec.json.encode(made.job)
    assert "canary" not in repr(made)


def test_a_variable_in_a_header_stays_secret_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    flags = {"provider": "http", "url": "http://127.0.0.1/x", "prompt": None, "base_url": None, "model": None}
    made = loaded(tmp_path, {"TOKEN": "canary"}, header=["X-Key: ${TOKEN}", "X-Plain: a"], **flags)
    assert made.job.step.headers == (("X-Plain", "a"),)
    assert made.auth[0][0].name == "X-Key"
    assert "canary" not in repr(made)
    with pytest.raises(UsageError, match="TOKEN"):
        loaded(tmp_path, header=["X-Key: ${TOKEN}"], **flags)


def test_a_kept_job_finds_its_secrets_in_the_environment_again(tmp_path: Path) -> None:
    environment = {"MY_KEY": "sk-canary", "TOKEN": "tok-canary"}
    flags = {"provider": "http", "url": "https://api.example.com/x", "prompt": None, "base_url": None}
    plain = loaded(tmp_path, environment, header=["Authorization: Bearer ${TOKEN}"], **flags)
    keyed = loaded(tmp_path, environment, base_url="https://api.example.com/v1", api_key_env="MY_KEY")
    for made, sent in ((plain, "Bearer tok-canary"), (keyed, "Bearer sk-canary")):
        kept = msgspec.json.decode(msgspec.json.encode(made.job), type=Job)
        assert [header.reveal() for header in auth_for(kept, environment)[0]] == [sent]
        with pytest.raises(UsageError, match="not set"):
            auth_for(kept, {})


def test_a_secret_within_a_header_is_masked_also_where_it_stands_alone(tmp_path: Path) -> None:
    flags = {"provider": "http", "url": "http://127.0.0.1/x", "prompt": None, "base_url": None, "model": None}
    made = loaded(tmp_path, {"TOKEN": "canary"}, header=["Authorization: Bearer ${TOKEN}"], **flags)
    assert redact("your key canary is wrong", all_secrets(made.auth[0])) == "your key [secret] is wrong"
    assert made.auth[0][0].masked == "Bearer [secret]"


def test_a_secret_is_masked_in_the_forms_that_servers_and_programs_repeat_it_in() -> None:
    value = 'k"7/+=9\\Qé'
    text = " | ".join(
        (
            value,
            quote(value),
            quote(value, safe=""),
            json.dumps(value),
            repr([value]),
            b64encode(value.encode()).decode(),
        )
    )
    masked = redact(text, [Secret(value)])
    assert masked.count("[secret]") == 6
    assert not any(character in masked for character in "k79Q%")
    assert redact(text, [Secret("k"), Secret("")]) == text  # too short to be told from the words around it


@pytest.mark.parametrize("encode", [b64encode, urlsafe_b64encode])
@pytest.mark.parametrize(
    "value", ["sk-canary-0123456789", "sk?canary>>>~~~???/", "é~~~?k", "abcd", "abcde", "abcdef"]
)
def test_a_secret_is_masked_in_base64_whatever_was_encoded_along_with_it(
    encode: Callable[[bytes], bytes], value: str
) -> None:
    for before in ("", "u", "me", "user:", "a-name:"):
        for after in ("", ":", "\n", " and more"):
            text = f"Basic {encode(f'{before}{value}{after}'.encode()).decode()} is wrong"
            masked = redact(text, [Secret(value)])
            assert (
                masked.count("[secret]") == 1 and masked.startswith("Basic ") and masked.endswith(" is wrong")
            )
            # What is left of a character at either end holds less than one byte of the secret.
            kept = masked.removeprefix("Basic ").removesuffix(" is wrong").replace("[secret]", "").rstrip("=")
            assert 6 * len(kept) <= 8 * len(before + after) + 2 * 6


@pytest.mark.parametrize("value", ["sk-canary-0123456789", "né~?k"])
def test_a_secret_is_masked_in_hexadecimal_digits(value: str) -> None:
    digits = value.encode().hex()
    text = f"key 00{digits}ff, {digits.upper()}"
    assert redact(text, [Secret(value)]) == "key 00[secret]ff, [secret]"


def test_text_in_base64_and_hexadecimal_that_is_no_secret_stays() -> None:
    text = f"{b64encode(b'user:another key').decode()} {b'another key'.hex()} sk-canary sk-canary-1"
    assert redact(text, [Secret("sk-canary-0123456789")]) == text


def test_a_job_survives_its_way_through_json(tmp_path: Path) -> None:
    made = loaded(tmp_path, param=["top_p=0.5", "stop=end"], temperature="0", max_tokens="5").job
    assert msgspec.json.decode(msgspec.json.encode(made), type=Job) == made
    assert made.target.params == {"top_p": 0.5, "stop": "end"}


def test_streaming_to_standard_output_keeps_no_state(tmp_path: Path) -> None:
    assert loaded(tmp_path, output="-").job.state == ""


def test_the_wire_can_be_chosen_and_is_no_part_of_what_the_job_is(tmp_path: Path) -> None:
    usual, lean = loaded(tmp_path), loaded(tmp_path, wire="lean")
    assert (usual.job.wire, lean.job.wire) == ("aiohttp", "lean")
    assert usual.job.identity() == lean.job.identity()
    with pytest.raises(UsageError, match=r"--wire 'copper' is not known. Use one of: aiohttp, lean"):
        loaded(tmp_path, wire="copper")
