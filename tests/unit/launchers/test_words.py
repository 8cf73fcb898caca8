"""What a child writes, read while it writes: whole lines, a short file, and the end at hand."""

from pathlib import Path

from engine.launchers.words import FILE_BYTES_MAX, LINE_BYTES_MAX, PIECE_BYTES, Words


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_lines_come_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "said"
    words = Words(path)
    assert words.lines() == [] and words.last(100) == ""
    append(path, b"one\r\ntwo\nthr")
    assert words.lines() == ["one", "two"]
    assert words.lines() == []
    append(path, "ee é\n\nfo".encode())
    assert words.lines() == ["three é", ""]
    assert words.lines(is_over=True) == ["fo"]
    assert words.last(100) == "one\r\ntwo\nthree é\n\nfo"
    assert words.last(4) == "fo"


def test_a_line_without_an_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "said"
    words = Words(path)
    append(path, b"x" * (LINE_BYTES_MAX + 10))
    assert words.lines() == ["x" * LINE_BYTES_MAX]


def test_of_a_flood_the_beginning_and_the_end_are_told_and_the_file_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "said"
    words = Words(path)
    lines = b"".join(b"%09d\n" % number for number in range(300_000))
    append(path, lines)
    told = words.lines()
    assert told[0] == "000000000" and told[-1] == "000299999"
    (mark,) = [line for line in told if "left out" in line]
    left_out = int(mark.split()[1])
    assert 0 <= left_out - (len(lines) - 2 * PIECE_BYTES) < 10, "what is shown begins with a line"
    assert told[told.index(mark) + 1] in lines.decode().split()
    assert words.lines() == [] and path.stat().st_size == 0
    append(path, b"and on\n")
    assert words.lines() == ["and on"]
    assert words.last(16) == "00299999\nand on"


def test_what_comes_steadily_is_told_whole_and_the_file_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "said"
    words = Words(path)
    told: list[str] = []
    for _ in range(300):
        append(path, b"y" * 39_999 + b"\n")
        told += words.lines()
        assert path.stat().st_size <= FILE_BYTES_MAX + PIECE_BYTES
    assert sum(map(len, told)) == 300 * LINE_BYTES_MAX


def test_the_end_is_told_whole_where_it_is_not_too_much(tmp_path: Path) -> None:
    path = tmp_path / "said"
    words = Words(path)
    append(path, b"z\n" * (3 * PIECE_BYTES) + b"last")
    told = words.lines(is_over=True)
    assert len(told) == 3 * PIECE_BYTES + 1 and told[-1] == "last"
