"""Read and write MIDAS run files, the raw data of experiments at PSI, TRIUMF and elsewhere.

A run file is a plain row of events.  The first one begins the run and the last one ends it; both
carry a dump of the online database (ODB) as text.  Each event between them holds banks, arrays
of numbers with a name of four characters.  The whole file may be compressed::

    for event in read_events(Path("run02091.mid.gz")):
        for bank in event.banks:
            print(event.serial, bank.name, bank.values)

The format is described on the page Event_Structure of the MIDAS wiki.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import mmap
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BEGIN_OF_RUN, END_OF_RUN, MESSAGE = 0x8000, 0x8001, 0x8002
RUN_MASK = 0x494D  # the trigger mask of these three; the letters MI

EVENT_HEADER = struct.Struct("<HHIII")  # id, trigger mask, serial number, time, size of the body
BANKS_HEADER_SIZE = 8  # size of all banks, flags
FLAGS_16, FLAGS_32, FLAGS_32A = 0x01, 0x11, 0x31
BANK_HEADERS = {  # name, type, size, and in 32a four reserved bytes
    FLAGS_16: "4sHH",
    FLAGS_32: "4sII",
    FLAGS_32A: "4sII4x",
}

BYTES = "u1"  # characters, strings, structures: everything that is not a number
NUMBERS = {
    1: "u1",
    2: "i1",
    4: "u2",
    5: "i2",
    6: "u4",
    7: "i4",
    8: "u4",  # a truth value, in 4 bytes
    9: "f4",
    10: "f8",
    11: "u4",  # a bit field
    17: "i8",
    18: "u8",
}
TYPE_OF_NUMBER = {NUMBERS[type_]: type_ for type_ in (1, 2, 4, 5, 6, 7, 9, 10, 17, 18)}

READ_SIZE = 1 << 20


class MidasError(Exception):
    """A run file that cannot be trusted; the text says which file, what is wrong, and where."""


@dataclass(frozen=True, eq=False)
class Bank:
    """Numbers under a name.  ``type`` is MIDAS' number of their type; bytes if it is none."""

    name: str
    values: Array
    type: int

    @classmethod
    def of(cls, name: str, values: npt.ArrayLike) -> Bank:
        """A bank of these values with the type that fits their dtype."""
        array = np.asarray(values)
        return cls(name, array, TYPE_OF_NUMBER[f"{array.dtype.kind}{array.dtype.itemsize}"])


@dataclass(frozen=True)
class Event:
    """One event; ``time`` is in Unix seconds.

    Events of the run itself (begin, end, message) carry ``text`` and no banks.
    """

    id: int
    mask: int
    serial: int  # the run number in events that begin or end a run
    time: int
    banks: tuple[Bank, ...] = ()
    text: bytes = b""

    @property
    def is_physics(self) -> bool:
        """Whether it holds banks and not the text of an event of the run itself."""
        return self.mask != RUN_MASK or self.id not in (BEGIN_OF_RUN, END_OF_RUN, MESSAGE)


# --------------------------------------------------------------------------- reading


def read_events(path: Path) -> Iterator[Event]:
    """All events of a run file, one after the other, from its begin to its end.

    Raises MidasError as soon as the file turns out to be something else, damaged, cut off, or
    without the event that ends a run; positions count bytes after decompression.  The number of
    events that the ODB claims is no check: it is stale in many good files.
    """
    with _decompressed(path) as stream:
        source = _Source(path.name, stream)
        complete = False
        while header := source.take(EVENT_HEADER.size, may_end=True):
            id_, mask, serial, time, size = EVENT_HEADER.unpack(header)
            if source.number == 0 and (id_, mask) != (BEGIN_OF_RUN, RUN_MASK):
                raise MidasError(f"{path.name}: not a MIDAS run file, begins with {header[:4]!r}")
            event = Event(id_, mask, serial, time, text=source.take(size))
            if event.is_physics:
                try:
                    banks = tuple(decode_banks(event.text))
                except ValueError as error:
                    raise MidasError(f"{path.name}: event {source.number}: {error}") from None
                event = Event(id_, mask, serial, time, banks)
            elif event.id == END_OF_RUN:
                complete = True
            yield event
            source.number += 1
    if source.number == 0:
        raise MidasError(f"{path.name}: the file is empty")
    if not complete:
        raise MidasError(f"{path.name}: no end-of-run event: the file is incomplete")


def decode_banks(body: bytes) -> Iterator[Bank]:
    """The banks in the body of an event; ValueError when it does not hold together."""
    if len(body) < BANKS_HEADER_SIZE:
        raise ValueError(f"{len(body)} bytes are too few for banks")
    order: Literal["<", ">"] = "<"
    total, flags = struct.unpack_from("<II", body)
    if flags >> 24 in BANK_HEADERS and not flags & 0xFFFFFF:  # a big-endian front-end wrote it
        order = ">"
        total, flags = struct.unpack_from(">II", body)
    if flags not in BANK_HEADERS:
        raise ValueError(f"unknown bank flags 0x{flags:x}")
    header = struct.Struct(order + BANK_HEADERS[flags])
    place, end = BANKS_HEADER_SIZE, BANKS_HEADER_SIZE + total
    if end > len(body):
        raise ValueError(f"banks of {total} bytes do not fit into the event")
    while place + header.size <= end:
        raw_name, type_, size = header.unpack_from(body, place)
        name = raw_name.rstrip(b"\0").decode("latin-1")
        place += header.size
        if place + size > end:
            raise ValueError(f"bank {name!r} of {size} bytes does not fit into the event")
        dtype = np.dtype(NUMBERS.get(type_, BYTES))
        if size % dtype.itemsize:
            dtype = np.dtype(BYTES)
        count = size // dtype.itemsize
        values = np.frombuffer(body, dtype.newbyteorder(order), count, place)
        yield Bank(name, values.astype(dtype, copy=False), type_)
        place += _padded(size)


def _padded(size: int) -> int:
    return (size + 7) & ~7


class _Source:
    """A stream that knows how far it was read, for the messages."""

    def __init__(self, name: str, stream: io.BufferedIOBase) -> None:
        self.name = name
        self.stream = stream
        self.position = 0  # in bytes
        self.number = 0  # of the event that is being read

    def take(self, size: int, *, may_end: bool = False) -> bytes:
        """The next ``size`` bytes, or none at all where the file may end.

        In pieces, because the size that a damaged header claims may be larger than the memory.
        """
        pieces: list[bytes] = []
        missing = size
        while missing:
            try:
                piece = self.stream.read1(min(missing, READ_SIZE))
            except EOFError:  # in the middle of the compressed data
                raise self._cut_off() from None
            except (OSError, zlib.error) as error:
                raise MidasError(
                    f"{self.name}: damaged after byte {self.position} "
                    f"in event {self.number}: {error}"
                ) from None
            if not piece:
                if may_end and not pieces:
                    return b""
                raise self._cut_off()
            pieces.append(piece)
            missing -= len(piece)
            self.position += len(piece)
        return b"".join(pieces)

    def _cut_off(self) -> MidasError:
        return MidasError(f"{self.name}: cut off at byte {self.position} in event {self.number}")


@contextlib.contextmanager
def _decompressed(path: Path) -> Iterator[io.BufferedIOBase]:
    """The file as a stream of events, decompressed as its first bytes say; names may lie."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            yield stack.enter_context(gzip.GzipFile(fileobj=file))
        elif magic[:3] == b"BZh":
            yield stack.enter_context(bz2.BZ2File(file))
        elif magic == b"\x04\x22\x4d\x18":
            spool = stack.enter_context(tempfile.NamedTemporaryFile(prefix="midas"))
            _decompress_lz4(path, file, spool.name)
            yield stack.enter_context(Path(spool.name).open("rb"))
        else:
            yield file


def _decompress_lz4(path: Path, file: BinaryIO, spool: str) -> None:
    """An lz4 frame into a file: cramjam cannot give it away in pieces.

    Memory grows with the compressed size only.
    """
    import cramjam

    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as compressed:
        target = cramjam.File(spool, read=True, write=True, truncate=False, append=False)
        try:
            cramjam.lz4.decompress_into(compressed, target)
        except cramjam.DecompressionError as error:
            raise MidasError(f"{path.name}: damaged or cut off: {error}") from None


# --------------------------------------------------------------------------- writing


def write_run(stream: BinaryIO, begin: Event, events: Iterable[Event], end: Event) -> None:
    """A complete run: the events between their begin and their end."""
    stream.write(encode_event(begin))
    for event in events:
        stream.write(encode_event(event))
    stream.write(encode_event(end))


def begin_of_run(run: int, time: int, odb: str) -> Event:
    """The event that begins a run."""
    return Event(BEGIN_OF_RUN, RUN_MASK, run, time, text=odb.encode())


def end_of_run(run: int, time: int, odb: str) -> Event:
    """The event that ends a run; without it a file counts as incomplete."""
    return Event(END_OF_RUN, RUN_MASK, run, time, text=odb.encode())


def encode_event(event: Event) -> bytes:
    """An event as it stands in a file, its banks in the newest flavour (32a)."""
    body = encode_banks(event.banks) if event.is_physics else event.text
    return EVENT_HEADER.pack(event.id, event.mask, event.serial, event.time, len(body)) + body


def encode_banks(banks: Iterable[Bank]) -> bytes:
    """The body of an event."""
    pieces: list[bytes] = []
    for bank in banks:
        array = bank.values
        data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        name = bank.name.encode("latin-1")
        pieces.append(struct.pack("<" + BANK_HEADERS[FLAGS_32A], name, bank.type, len(data)))
        pieces.append(data.ljust(_padded(len(data)), b"\0"))
    joined = b"".join(pieces)
    return struct.pack("<II", len(joined), FLAGS_32A) + joined


def odb_text(sections: Mapping[str, Mapping[str, int | float | bool | str]]) -> str:
    """A dump of the online database in its old text format, ``[/Path]`` and ``Name = TYPE : …``."""
    lines = []
    for path, values in sections.items():
        lines.append(f"[{path}]")
        lines += [f"{name} = {_odb_value(value)}" for name, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _odb_value(value: int | float | bool | str) -> str:
    if isinstance(value, bool):
        return f"BOOL : {'y' if value else 'n'}"
    if isinstance(value, int):
        return f"INT : {value}"
    if isinstance(value, float):
        return f"DOUBLE : {value!r}"
    return f"STRING : [{max(32, len(value.encode()) + 1)}] {value}"
