"""URLs that rows bring along: one reading, one form, and none that leads where credentials lie."""

import socket
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.providers.row_urls import URL_CHARS_MAX, is_off_limits, read_row_url


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://host", "http://host/"),
        ("HTTP://Host:80?a=1#x", "http://host/?a=1"),
        ("https://host:443/x", "https://host/x"),
        ("https://host:80/x", "https://host:80/x"),
        ("http://host:/x", "http://host/x"),
        ("http://host:0080/x", "http://host/x"),
        ("\t http://host/a b\n", "http://host/a%20b"),
        ("http://host/%41%zz?%20+", "http://host/%41%zz?%20+"),
        ("http://host/ä?ö=\u2028", "http://host/%C3%A4?%C3%B6=%E2%80%A8"),
        ("http://host/a/./b/../c/", "http://host/a/c/"),
        ("http://host/a/%2E%2e/%2e", "http://host/"),
        ("http://host/../../x", "http://host/x"),
        ("http://host/a//b", "http://host/a//b"),
        ("http://host/.well-known/x", "http://host/.well-known/x"),
        ("http://a_b.example./x", "http://a_b.example./x"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),
        ("http://h\u3002example/", "http://h.example/"),
        ("http://[0:0::1]:80/x", "http://[::1]/x"),
        ("http://[2001:DB8::1]:8080/x", "http://[2001:db8::1]:8080/x"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7f.0.0.01/", "http://127.0.0.1/"),
        ("http://2130706433:8000/", "http://127.0.0.1:8000/"),
        ("http://10.0.0.8/", "http://10.0.0.8/"),
        ("http://192.168.1.1./", "http://192.168.1.1/"),
        ("http://host/'();@[]|!$", "http://host/'();@[]|!$"),
    ],
)
def test_a_url_is_written_in_one_form(written: str, sent: str) -> None:
    assert read_row_url(written) == sent
    assert read_row_url(sent) == sent


@pytest.mark.parametrize(
    "url",
    [
        "", " ", "host", "host/x", "//host/x", "/x", "ftp://host/", "file:///etc/passwd", "javascript:1", "http:host",
        "http:/host", "http://", "http:///x", "http://?x", "http://:80/", "http://me@host/", "http://me:pw@host/",
        "http://@host/", "http://a\\b/",
        "http://host\\@evil/", "http://host/a\\b", "http://host/a\nb", "http://ho\tst/", "http://host/\x00", "http://host/\x85",
        "http://host/\ud800", "http://host:x/", "http://host:0/", "http://host:65536/", "http://host:1:2/", "http://host:-1/",
        "http://ho st/", "http://ho%73t/", "http://ho,st/", "http://a..b/", "http://.a/", "http://" + "a" * 64 + "/",
        "http://" + "a." * 127 + "a/", "http://[::1/", "http://::1/", "http://[::1]x/", "http://[x]/", "http://[]/",
        "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[::1%eth0]/", "http://1.2.3.4.5/", "http://a.1/",
        "http://256.1.1.1/", "http://1.2.3.256/", "http://08.1/", "http://4294967296/",
        "http://h/" + "x" * URL_CHARS_MAX, "http://h/" + "ä" * (URL_CHARS_MAX // 3),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_or_in_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^it") as raised:
        read_row_url(url)
    assert "pw" not in str(raised.value) and len(str(raised.value)) < 150


# The link-local network, and metadata services of clouds, in every way that some resolver or server takes.
ASTRAY = (
    "169.254.169.254", "169.254.0.0", "169.254.255.255", "169.254.43518", "169.16689662", "2852039166", "0xa9fea9fe",
    "0XA9FEA9FE", "0251.0376.0251.0376", "0xa9.254.0251.0xfe", "0251.254.43518", "169.254.169.254.", "00000251.254.0.1",
    "\uff11\uff16\uff19.254.169.254", "169\u3002254\u3002169\u3002254", "[fe80::1]", "[FE80::a9fe:a9fe]", "[febf:ffff::1]",
    "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:FFFF:169.254.1.1]", "[::169.254.169.254]",
    "[::ffff:0:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]", "[fd00:ec2::254]", "[fd00:ec2::23]",
    "[fd20:ce::254]", "100.100.100.200", "168.63.129.16",
)  # fmt: skip


@pytest.mark.parametrize("host", ASTRAY)
def test_no_row_names_a_link_local_address_or_a_metadata_service_however_it_is_written(host: str) -> None:
    for url in (f"http://{host}/latest/meta-data/", f"https://{host}:8443?x"):
        with pytest.raises(ValueError, match="link-local"):
            read_row_url(url)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "10.0.0.1", "192.168.0.1", "fd00::1", "169.253.255.255", "169.255.0.0", "8.8.8.8", "::ffff:127.0.0.1",
     "2001:db8::1", "2002:a00:1::1", "64:ff9b::8.8.8.8", "0.0.0.0", "fec0::1"],
)  # fmt: skip
def test_loopback_private_and_public_addresses_are_allowed(address: str) -> None:
    assert not is_off_limits(address)


@pytest.mark.parametrize(
    "address", ["fe80::1%eth0", "fe80::1%2", "169.254.1.2", "", "host", "0xa9fea9fe", "2852039166"]
)
def test_what_was_resolved_is_off_limits_where_it_is_link_local_or_no_address(address: str) -> None:
    assert is_off_limits(address)


FIGURE = st.integers(0, 2**32).flatmap(
    lambda n: st.sampled_from([f"{n}", f"0{n:o}", f"0x{n:x}", f"0X{n:X}", f"00{n:o}"])
)


@given(
    parts=st.lists(
        st.one_of(FIGURE, st.integers(0, 300).map(str), st.just("0251"), st.just("254")),
        min_size=1,
        max_size=5,
    )
)
def test_an_ipv4_address_in_figures_is_read_as_the_resolver_reads_it(parts: list[str]) -> None:
    written = ".".join(parts)
    try:
        resolved = socket.inet_aton(written)
    except OSError:
        with pytest.raises(ValueError, match=r"."):
            read_row_url(f"http://{written}/")
        return
    address = IPv4Address(resolved)
    if is_off_limits(str(address)):
        with pytest.raises(ValueError, match="link-local"):
            read_row_url(f"http://{written}/")
    else:
        assert read_row_url(f"http://{written}/") == f"http://{address}/"
