"""A log of a long run with a line for each image, so that a run that was killed can go on.

The file is JSON lines. Its first line is the metadata of the run; the log of another run is
refused. Half a line at its end, which is all that a kill can leave, is dropped.
"""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from scclip_core.files import atomic_write

Record = dict[str, object]


class RunLog:
    """The records of a run, by the index of their image.

    The records of all processes are read; those of this process are written. A record is
    {"image": index, "confusion": result} or, for an image that failed, {"image": index,
    "error": reason}.

    Args:
        folder: where the files `run_log-NAME-RANK.jsonl` lie.
        name: of the method that the records belong to.
        metadata: all that the results depend on, as plain JSON values.
        rank: number of this process.

    Raises ValueError where the folder holds the log of another run under this name, and says in
    what it differs.
    """

    def __init__(self, folder: Path, name: str, metadata: Record, rank: int = 0):
        self.records: dict[int, Record] = {}
        # Not a glob: scclip-* would match the files of scclip-published.
        own = re.compile(rf"run_log-{re.escape(name)}-\d+\.jsonl")
        for path in sorted(path for path in folder.iterdir() if own.fullmatch(path.name)):
            # What follows the last newline is half a line, or nothing.
            lines = path.read_bytes().split(b"\n")[:-1]
            if not lines:
                continue
            stored = json.loads(lines[0])
            keys = sorted(stored.keys() | metadata.keys())
            differing = [key for key in keys if stored.get(key) != metadata.get(key)]
            if differing:
                raise ValueError(
                    f"out must be a new folder, {folder} holds a run of {name} that differs in "
                    f"{', '.join(differing)}: give another --out, or remove its run log"
                )
            self.add(json.loads(line) for line in lines[1:])
        self.path = folder / f"run_log-{name}-{rank}.jsonl"
        self._keep_whole_lines(json.dumps(metadata))

    def _keep_whole_lines(self, first_line: str) -> None:
        """Drop half a line at the end of this process's file, or begin the file."""
        whole = self.path.read_bytes().rpartition(b"\n")[:2] if self.path.is_file() else ()
        content = b"".join(whole) or first_line.encode() + b"\n"
        with atomic_write(self.path) as partial:
            partial.write_bytes(content)

    def add(self, records: Iterable[Record]) -> None:
        """Take records in without writing them; the last of several for one image counts."""
        self.records.update({int(str(record["image"])): record for record in records})

    def write(self, records: list[Record]) -> None:
        """Take records in and append them to the file; they are on the disk when this returns."""
        self.add(records)
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in records))
            file.flush()
            os.fsync(file.fileno())

    def has_results(self, images: Iterable[int]) -> bool:
        """Whether all these images have a result; one that failed has none."""
        return all("confusion" in self.records.get(i, {}) for i in images)
