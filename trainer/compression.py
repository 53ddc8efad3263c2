"""Decompresses data files, and distinguishes damaged files from failures of the store."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, cast

# Extensions of compressed files.
ENDINGS = (".gz", ".bz2", ".xz", ".zst")
# What decompressors raise for damaged and for cut files. pyarrow raises subclasses of them.
DAMAGE = (EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)


class Source(io.RawIOBase):
    """A file in a store that remembers whether the store failed.

    Decompressors raise the same types of errors for damaged content as stores do for failures.
    """

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.has_failed = False

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes."""
        try:
            content = self._raw.read(len(buffer))
        except Exception:
            self.has_failed = True
            raise
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to another position."""
        return int(self._raw.seek(offset, whence))

    def tell(self) -> int:
        """The current position."""
        return int(self._raw.tell())

    def readable(self) -> bool:
        """It is open for reading."""
        return True

    def seekable(self) -> bool:
        """It has positions."""
        return True


def ending_of(name: str) -> str | None:
    """The extension of a compressed file."""
    return next((ending for ending in ENDINGS if name.endswith(ending)), None)


def opened(source: Source, ending: str) -> IO[bytes]:
    """The content of a compressed file."""
    openers: dict[str, Callable[[Any], Any]] = {
        ".gz": lambda file: gzip.GzipFile(fileobj=file),
        ".bz2": bz2.BZ2File,
        ".xz": lzma.LZMAFile,
        ".zst": _zstd,
    }
    return cast(IO[bytes], openers[ending](source))


def _zstd(source: Source) -> Any:
    import pyarrow

    stream: Any = pyarrow.CompressedInputStream(pyarrow.PythonFile(source, "r"), "zstd")
    return io.BufferedReader(stream, 1 << 20)
