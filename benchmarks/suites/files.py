"""Reading data files: where they lie, and one typed row per line of JSON. Blocking: not for an event loop."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from palmette.benchmarks.errors import BadData, MissingData

RowT = TypeVar("RowT")


class Located(NamedTuple):
    """A row and the place it came from."""

    file: Path
    line: int


def locate(benchmark: str, data: Path | None, names: Sequence[str]) -> Path:
    """The file of tasks: ``data`` itself if it is a file, else the first of ``names`` in the directory ``data``.

    Raises:
        MissingData: no ``data`` was given, it does not exist, or the directory holds none of the files.
    """
    wanted = " or ".join(names)
    if data is None:
        raise MissingData(f"{benchmark} reads its tasks from a file: give --data DIR, a directory that holds {wanted}")
    try:
        if data.is_file():
            return data
        if not data.is_dir():
            raise MissingData(f"there is no {data}; give --data the directory that holds {wanted} of {benchmark}")
        for name in names:
            if (data / name).is_file():
                return data / name
        held = sorted(entry.name for entry in data.iterdir())
    except OSError as error:
        raise MissingData(f"{data} cannot be read ({error.strerror}); check its permissions") from error
    holds = f"it holds {', '.join(held[:6])}{', …' if len(held) > 6 else ''}" if held else "it is empty"
    raise MissingData(f"{data} has no {wanted} ({holds}); give --data the directory of {benchmark}")


def read_rows(file: Path, row: type[RowT]) -> Iterator[tuple[Located, RowT]]:
    """The rows of a JSON-lines file, gzipped where its name ends in ``.gz``. Empty lines are passed over.

    Raises:
        MissingData: the file cannot be opened.
        BadData: a line is no JSON or does not fit ``row``, or the archive is damaged; with file and line.
    """
    decoder = msgspec.json.Decoder(row)
    line = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for text in lines:
                line += 1
                if text.strip():
                    yield Located(file, line), _decode(decoder, text, file, line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadData(file, line + 1, f"the archive is damaged ({error})", "fetch it again") from error
    except OSError as error:
        raise MissingData(f"{file} cannot be read ({error.strerror or error}); check path and permissions") from error
    if line == 0:
        raise BadData(file, None, "the file is empty", "fetch it again")


def _decode(decoder: msgspec.json.Decoder[RowT], text: bytes, file: Path, line: int) -> RowT:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        remedy = "correct the line or remove it"
        raise BadData(file, line, f"not a usable row ({error})", remedy) from error
