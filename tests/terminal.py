"""A pseudo terminal, and what a person would see on it."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading


SEQUENCE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")


class Terminal:
    """A pseudo terminal; `device` is what a program writes to."""

    def __init__(self, width: int = 80, height: int = 40):
        self.width = width
        self._read, self.device = pty.openpty()
        fcntl.ioctl(self.device, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self._bytes = b""
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()

    def _collect(self) -> None:
        while True:
            try:
                part = os.read(self._read, 65536)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            self._bytes += part

    def close(self) -> str:
        """Everything that was written."""
        os.close(self.device)
        self._reader.join(timeout=10)
        assert not self._reader.is_alive()
        os.close(self._read)
        return self._bytes.decode()


def screen(written: str, width: int) -> list[str]:
    """The lines that are on a terminal of endless height in the end; one that is too long goes on in the next."""
    lines, row, column, place = [""], 0, 0, 0
    while place < len(written):
        found = SEQUENCE.match(written, place)
        if found:
            count, kind = found[1], found[2]
            if kind == "A":
                row = max(0, row - int(count or 1))
            elif kind == "K":
                assert count == "2", found[0]
                lines[row] = ""
            else:
                assert kind in (None, "m", "h", "l"), found[0]
            place = found.end()
            continue
        character = written[place]
        place += 1
        if character == "\r":
            column = 0
        elif character == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        else:
            assert character.isprintable(), repr(character)
            if column == width:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            line = lines[row].ljust(column)
            lines[row] = line[:column] + character + line[column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def cursor_is_shown(written: str) -> bool:
    """Whether the cursor is to be seen in the end."""
    return written.rfind("\x1b[?25l") <= written.rfind("\x1b[?25h")
