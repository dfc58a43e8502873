"""A journal of a long run: a line a picture, so that a run killed at any moment goes on where it stopped.

The file is JSON lines. The first tells what the run is; a journal of another run is refused. A half-written
last line, which is all that a kill can leave, is dropped.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from scclip_core.files import atomic_write

Record = dict[str, object]


class Journal:
    """Records of a run by the number of their picture: those of all processes are read, this one's are
    written.

    Args:
        folder: where the files `journal-NAME-RANK.jsonl` lie.
        name: of the method whose results are noted.
        about: what the results depend on, of plain JSON values; the files' first lines must equal it.
        rank: number of this process.

    Raises ValueError where the folder holds a journal of another run under this name, naming what differs.
    """

    def __init__(self, folder: Path, name: str, about: Record, rank: int = 0):
        self.records: dict[int, Record] = {}
        for path in sorted(folder.glob(f"journal-{name}-*.jsonl")):
            lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is half a line
            if not lines:
                continue
            told = json.loads(lines[0])
            if told != about:
                differs = sorted(k for k in told.keys() | about.keys() if told.get(k) != about.get(k))
                raise ValueError(
                    f"out must be a new folder, {folder} holds a run of {name} that differs in "
                    f"{', '.join(differs)}: give another --out, or remove its journal"
                )
            self.add(json.loads(line) for line in lines[1:])
        self.path = folder / f"journal-{name}-{rank}.jsonl"
        self._keep_whole_lines(json.dumps(about))

    def _keep_whole_lines(self, head: str) -> None:
        """Drop half a line at the end of this process's file, or begin the file."""
        whole = self.path.read_bytes().rpartition(b"\n")[:2] if self.path.is_file() else (b"", b"")
        content = b"".join(whole) or head.encode() + b"\n"
        with atomic_write(self.path) as partial:
            partial.write_bytes(content)

    def add(self, records: Iterable[Record]) -> None:
        """Take records in, without writing them; the last of several for one picture counts."""
        self.records.update({int(record["picture"]): record for record in records})

    def write(self, records: list[Record]) -> None:
        """Take records in and append them to the file, on the disk before this returns."""
        self.add(records)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def done(self, pictures: range) -> bool:
        """Whether every picture of a range has a result, which a failed one has not."""
        return all("cells" in self.records.get(i, {}) for i in pictures)
