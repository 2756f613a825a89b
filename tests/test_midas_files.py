"""MIDAS run files: what was written is read back, and what is damaged is found out."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path

import cramjam
import midas
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from midas import Bank, Event, MidasError, read_events

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_genuine_files = pytest.mark.skipif(
    not SHARED.exists(), reason=f"genuine run files are not there: {SHARED}"
)

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
}
BEGIN = midas.begin_of_run(2095, 1386720000, "[/Runinfo]\nRun number = INT : 2095\n")
END = midas.end_of_run(2095, 1386720600, "[/Runinfo]\nState = INT : 1\n")


def encoded(events: Iterable[Event], begin: Event = BEGIN, end: Event = END) -> bytes:
    stream = io.BytesIO()
    midas.write_run(stream, begin, events, end)
    return stream.getvalue()


def written(directory: Path, data: bytes, name: str = "run02095.mid") -> Path:
    path = directory / name
    path.write_bytes(data)
    return path


def banks_of(event: Event) -> list[tuple[str, int, str, list[object]]]:
    return [(b.name, b.type, b.values.dtype.name, b.values.tolist()) for b in event.banks]


def everything(event: Event) -> tuple[object, ...]:
    return event.id, event.mask, event.serial, event.time, event.text, banks_of(event)


def raw_event(body: bytes, number: int = 1) -> bytes:
    return struct.pack("<HHIII", number, 0, 1, 1386720000, len(body)) + body


def run_around(*events: bytes) -> bytes:
    return midas.encode_event(BEGIN) + b"".join(events) + midas.encode_event(END)


# --------------------------------------------------------------------------- round trip

NUMBER_TYPES = sorted(midas.TYPE_OF_NUMBER)
values = st.sampled_from(NUMBER_TYPES).flatmap(
    lambda code: arrays.arrays(
        np.dtype(code), st.integers(0, 9), elements={"allow_nan": False} if "f" in code else None
    )
)
names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=4)
events = st.builds(
    Event,
    id=st.integers(0, 0xFFFF),
    mask=st.integers(0, 0xFFFF).filter(lambda mask: mask != midas.RUN_MASK),
    serial=st.integers(0, 2**32 - 1),
    time=st.integers(0, 2**32 - 1),
    banks=st.lists(st.builds(Bank.of, names, values), max_size=4).map(tuple),
)


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(run=st.lists(events, max_size=4), compression=st.sampled_from(sorted(COMPRESSIONS)))
def test_what_was_written_is_read_back(tmp_path: Path, run: list[Event], compression: str) -> None:
    path = written(tmp_path, COMPRESSIONS[compression](encoded(run)))
    assert [everything(e) for e in read_events(path)] == [everything(e) for e in (BEGIN, *run, END)]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_first_bytes_decide_and_not_the_name(tmp_path: Path, compression: str) -> None:
    data = COMPRESSIONS[compression](encoded([]))
    for name in ("run02095.mid.gz", "run02095.mid.lz4", "run02095.mid.bz2", "run02095.mid"):
        assert [e.serial for e in read_events(written(tmp_path, data, name))] == [2095, 2095]


def test_messages_carry_text_and_no_banks(tmp_path: Path) -> None:
    message = Event(midas.MESSAGE, midas.RUN_MASK, 1, 1386720001, text=b"HV tripped")
    path = written(tmp_path, encoded([message]))
    assert [everything(e) for e in read_events(path)][1] == everything(message)


# --------------------------------------------------------------------------- flavours of banks


@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian front-end"])
@pytest.mark.parametrize(
    ("flags", "layout"), [(0x01, "4sHH"), (0x11, "4sII"), (0x31, "4sIII")], ids=["16", "32", "32a"]
)
def test_every_flavour_of_banks_is_read(
    tmp_path: Path, flags: int, layout: str, order: str
) -> None:
    content = [
        (b"ADC0", 4, struct.pack(f"{order}3H", 1, 2, 65535)),
        (b"TEMP", 9, struct.pack(f"{order}f", 20.5)),
        (b"EMPT", 6, b""),
        (b"TIME", 18, struct.pack(f"{order}Q", 2**63)),
        (b"ONE\0", 1, b"\x07"),
    ]
    packed = b""
    for name, type_, data in content:
        reserved = (0,) if flags == 0x31 else ()
        packed += struct.pack(order + layout, name, type_, len(data), *reserved)
        packed += data + bytes(-len(data) % 8)
    body = struct.pack(f"{order}II", len(packed), flags) + packed
    _, event, _ = read_events(written(tmp_path, run_around(raw_event(body))))
    assert banks_of(event) == [
        ("ADC0", 4, "uint16", [1, 2, 65535]),
        ("TEMP", 9, "float32", [20.5]),
        ("EMPT", 6, "uint32", []),
        ("TIME", 18, "uint64", [2**63]),
        ("ONE", 1, "uint8", [7]),
    ]


@pytest.mark.parametrize("type_", [3, 12, 13, 14, 15, 16, 0, 99])
def test_what_is_no_number_is_bytes(type_: int) -> None:
    body = midas.encode_banks([Bank("TEXT", np.frombuffer(b"hello", "u1"), type_)])
    (bank,) = midas.decode_banks(body)
    assert (bank.values.dtype.name, bank.values.tobytes()) == ("uint8", b"hello")


def test_numbers_with_an_odd_size_are_bytes() -> None:
    body = midas.encode_banks([Bank("ODD ", np.frombuffer(b"12345", "u1"), 6)])
    (bank,) = midas.decode_banks(body)
    assert bank.values.tobytes() == b"12345"


def test_banks_of_the_same_name_are_all_there() -> None:
    body = midas.encode_banks([Bank.of("SAME", [1]), Bank.of("SAME", [2])])
    assert [bank.values.tolist() for bank in midas.decode_banks(body)] == [[1], [2]]


# --------------------------------------------------------------------------- failures

SAMPLE = [
    Event(1, 0, number, 1386720000, (Bank.of("ADC0", np.arange(number + 3, dtype="u2")),))
    for number in range(3)
]


def message_of(path: Path) -> str:
    with pytest.raises(MidasError) as caught:
        list(read_events(path))
    return str(caught.value)


def test_a_file_cut_anywhere_is_found_out(tmp_path: Path) -> None:
    data = encoded(SAMPLE)
    bounds = np.cumsum([0, *(len(midas.encode_event(e)) for e in (BEGIN, *SAMPLE, END))])
    for cut in range(1, len(data)):
        message = message_of(written(tmp_path, data[:cut]))
        if cut in bounds:
            assert message == "run02095.mid: no end-of-run event: the file is incomplete"
        else:
            number = int(np.searchsorted(bounds, cut)) - 1
            assert message == f"run02095.mid: cut off at byte {cut} in event {number}"


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "lz4"])
def test_compressed_data_cut_anywhere_are_found_out(tmp_path: Path, compression: str) -> None:
    data = COMPRESSIONS[compression](encoded(SAMPLE))
    for cut in range(5, len(data)):
        assert "cut off" in message_of(written(tmp_path, data[:cut]))


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "lz4"])
def test_damaged_compressed_data_are_found_out(tmp_path: Path, compression: str) -> None:
    data = bytearray(COMPRESSIONS[compression](encoded(SAMPLE * 100)))
    data[len(data) // 2] ^= 0xFF
    assert message_of(written(tmp_path, bytes(data))).startswith("run02095.mid: ")


def test_events_before_the_cut_are_given(tmp_path: Path) -> None:
    reading = read_events(written(tmp_path, encoded(SAMPLE)[:-1]))
    expected = [BEGIN, *SAMPLE]
    assert [everything(next(reading)) for _ in expected] == [everything(e) for e in expected]
    with pytest.raises(MidasError, match="cut off"):
        next(reading)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"no run file", "cut off at byte 11 in event 0"),
        (b"<html>404 not found</html>", "not a MIDAS run file, begins with b'<htm'"),
        (bytes(4096), "not a MIDAS run file, begins with b'\\x00\\x00\\x00\\x00'"),
    ],
)
def test_garbage_is_refused(tmp_path: Path, data: bytes, complaint: str) -> None:
    assert message_of(written(tmp_path, data)) == f"run02095.mid: {complaint}"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert message_of(written(tmp_path, b"")) == "run02095.mid: the file is empty"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"1234", "4 bytes are too few for banks"),
        (struct.pack("<II", 0, 0x77), "unknown bank flags 0x77"),
        (struct.pack("<II", 100, 0x11), "banks of 100 bytes do not fit into the event"),
        (
            struct.pack("<II4sII", 12, 0x11, b"ADC0", 6, 400),
            "bank 'ADC0' of 400 bytes does not fit into the event",
        ),
    ],
)
def test_an_event_that_does_not_hold_together_is_found_out(
    tmp_path: Path, body: bytes, complaint: str
) -> None:
    path = written(tmp_path, run_around(raw_event(body)))
    assert message_of(path) == f"run02095.mid: event 1: {complaint}"


def test_the_count_in_the_odb_is_no_check(tmp_path: Path) -> None:
    odb = midas.odb_text({"/Equipment/Trigger/Statistics": {"Events sent": 4711}})
    data = encoded(SAMPLE, end=midas.end_of_run(2095, 1386720600, odb))
    assert len(list(read_events(written(tmp_path, data)))) == len(SAMPLE) + 2


# --------------------------------------------------------------------------- memory


@pytest.mark.parametrize("compression", ["plain", "gzip", "bzip2"])
def test_a_run_need_not_fit_into_the_memory(tmp_path: Path, compression: str) -> None:
    event = Event(1, 0, 1, 1386720000, (Bank.of("WAVE", np.zeros(100_000, dtype="u2")),))
    path = written(tmp_path, COMPRESSIONS[compression](encoded([event] * 100)))
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_events(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 102
    assert peak < 5_000_000  # of 20 MB


def test_a_nonsense_size_does_not_fill_the_memory(tmp_path: Path) -> None:
    claim = struct.pack("<HHIII", 1, 0, 1, 1386720000, 0xFFFFFFF0)
    path = written(tmp_path, midas.encode_event(BEGIN) + claim + bytes(1000))
    tracemalloc.start()
    try:
        message = message_of(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message.startswith("run02095.mid: cut off at byte")
    assert peak < 5_000_000


# --------------------------------------------------------------------------- the online database


def test_the_dump_of_the_odb_is_in_the_old_format() -> None:
    text = midas.odb_text(
        {
            "/Runinfo": {"State": 3, "Start time": "Wed Dec 11 03:05:07 2013"},
            "/Logger": {"Write data": True, "Scale": 0.5, "Comment": "x" * 40},
        }
    )
    assert text.splitlines() == [
        "[/Runinfo]",
        "State = INT : 3",
        "Start time = STRING : [32] Wed Dec 11 03:05:07 2013",
        "",
        "[/Logger]",
        "Write data = BOOL : y",
        "Scale = DOUBLE : 0.5",
        f"Comment = STRING : [41] {'x' * 40}",
    ]


# --------------------------------------------------------------------------- genuine files


@needs_genuine_files
@pytest.mark.parametrize(
    ("name", "run", "physics", "bank", "dtype"),
    [
        ("run00407sub0000.mid.lz4", 407, 8225, "PMT", "uint16"),
        ("run00575.mid.gz", 575, 3055, "QDC0", "uint32"),
    ],
)
def test_genuine_runs_are_read(name: str, run: int, physics: int, bank: str, dtype: str) -> None:
    begin, *middle, end = read_events(SHARED / "midas" / name)
    assert (begin.id, begin.serial) == (midas.BEGIN_OF_RUN, run)
    assert (end.id, end.serial) == (midas.END_OF_RUN, run)
    assert len(middle) == physics
    assert bank in {b.name for event in middle for b in event.banks if b.values.dtype == dtype}


@needs_genuine_files
def test_a_genuine_run_that_ends_in_the_middle_is_found_out() -> None:
    reading = read_events(SHARED / "midas" / "test_xmlodb.mid.gz")
    assert len([next(reading) for _ in range(36)]) == 36
    with pytest.raises(MidasError, match=r"^test_xmlodb.mid.gz: cut off at byte 1024000 in event"):
        next(reading)


@needs_genuine_files
@pytest.mark.slow
def test_all_genuine_runs_of_sir2_are_complete() -> None:
    paths = sorted((SHARED / "midas-SiR2").glob("run*"))
    assert paths
    for path in paths:
        begin, *_, end = read_events(path)
        assert begin.serial == end.serial == int(path.name[3:8])
