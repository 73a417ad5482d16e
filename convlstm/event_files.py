"""Event files that TensorBoard reads: how loss, learning rate and forecasts went, as a run goes on.

They are for looking, and no part of what `convlstm verify` proves: every entry holds the time of day at which it was
written.  A folder holds a file for each time that a run was started or continued, numbered; a later file says from
which step on it replaces what the earlier ones hold.

Of tensorboardX its messages and checksums are used, not its writers.  Those hand entries to a thread, which dies where
the disk is full while the program waits for it for ever, and name files by the second, so that a run that is continued
at once writes over what it had.
"""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convlstm.animation import colours_of, enlarged
from convlstm.page.pictures import Colours, png
from convlstm.whole_files import naming

NAME = "events.out.tfevents."  # by "tfevents" TensorBoard knows such files; it reads them in the order of their names


class EventFile:
    """A new event file in a folder; each entry is with the operating system when a method returns.

    An entry is written whole, or, where the disk is full or Ctrl-C comes, taken back; a process that is killed may
    leave half of its last one, which TensorBoard passes over.  No thread is started.  Use it in a `with` statement.

    Attributes:
        path: the file.
    """

    def __init__(self, folder: str | os.PathLike[str], *, first_step: int = 0) -> None:
        """Make the folder where it is missing, and a file in it.

        Args:
            folder: where the run's event files lie.
            first_step: entries of earlier files from this step on are no longer shown; where a run goes on from a
                checkpoint, the first step that it takes.

        Raises:
            ModuleNotFoundError: tensorboardX is not installed.
            OSError: the file cannot be made.
        """
        self._messages = _messages()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{NAME}{_next_number(folder):06d}"
        with naming(self.path):
            self._file = self.path.open("xb", buffering=0)
        try:
            self._add(file_version="brain.Event:2")
            self._add(first_step, session_log=self._messages.SessionLog(status=self._messages.SessionLog.START))
        except BaseException:
            self.close()
            raise

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add a number of a step, which may be NaN or infinite; ``"loss/train"`` stands below ``"loss"``.

        Raises:
            OSError: it cannot be written.
            ValueError: the file is closed.
        """
        self._add_summary(step, tag=name, simple_value=float(value))

    def image(self, name: str, frame: NDArray[np.float32], step: int, *, colours: Colours | None = None) -> None:
        """Add a frame as a picture, enlarged to 256 pixels or more; missing values, NaN, are see-through.

        Args:
            name: of the picture.
            frame: (H, W), or (C, H, W), whose first channel is drawn.
            step: after which it was computed.
            colours: of the values; those of `convlstm.animation.colours_of` where not given.

        Raises:
            ValueError: the frame has another shape, or the file is closed.
            OSError: it cannot be written.
        """
        if frame.ndim not in (2, 3) or 0 in frame.shape:
            raise ValueError(f"frame must have shape (H, W) or (C, H, W), none 0; got {frame.shape}")
        drawn = frame if frame.ndim == 2 else frame[0]
        colours = colours or colours_of(drawn)
        indices = enlarged(colours.indices(drawn)[None])[0]
        H, W = indices.shape
        data = png(indices, colours.palette())
        image = self._messages.Summary.Image(height=H, width=W, colorspace=4, encoded_image_string=data)
        self._add_summary(step, tag=name, image=image)

    def text(self, name: str, text: str) -> None:
        """Add a text, in Markdown, at step 0 where TensorBoard shows one that holds for the run.

        Raises:
            OSError: it cannot be written.
            ValueError: the file is closed.
        """
        messages = self._messages
        plugin = messages.SummaryMetadata.PluginData(plugin_name="text")
        shape = messages.TensorShapeProto(dim=[messages.TensorShapeProto.Dim(size=1)])
        tensor = messages.TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
        self._add_summary(0, tag=name, metadata=messages.SummaryMetadata(plugin_data=plugin), tensor=tensor)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def __enter__(self) -> EventFile:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file, whatever has happened."""
        self.close()

    def _add_summary(self, step: int, **value: Any) -> None:
        summary = self._messages.Summary
        self._add(step, summary=summary(value=[summary.Value(**value)]))

    def _add(self, step: int = 0, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), step=step, **content)
        record = self._record(event.SerializeToString())
        before = self._file.tell()
        try:
            with naming(self.path):
                rest = memoryview(record)
                while rest:  # a disk that is nearly full takes some of it
                    rest = rest[self._file.write(rest) :]
        except BaseException:
            with suppress(OSError):  # half an entry would hide all that follow it
                self._file.truncate(before)
                self._file.seek(before)
            raise

    def _record(self, data: bytes) -> bytes:
        """Return an entry as it stands in the file: its length, checksum of that, the entry, checksum of that."""
        length = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", self._messages.masked_crc32c(part)) for part in (length, data)]
        return length + sums[0] + data + sums[1]


def check_events() -> None:
    """Check that event files can be written.

    Raises:
        ModuleNotFoundError: tensorboardX is not installed.
    """
    _messages()


def _next_number(folder: Path) -> int:
    """Return one more than the largest number of an event file in the folder."""
    numbers = [file.name.removeprefix(NAME) for file in folder.glob(f"{NAME}*")]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def _messages() -> SimpleNamespace:
    """Return what tensorboardX knows of the format: its messages, and its checksum."""
    try:
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped, unused-ignore]
        from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped, unused-ignore]
        from tensorboardX.proto.tensor_pb2 import TensorProto  # type: ignore[import-untyped, unused-ignore]
        from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto  # type: ignore[import-untyped, unused-ignore]
        from tensorboardX.record_writer import masked_crc32c  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'event files need tensorboardX, and {error.name} is missing; in the clone, pip install ".[tensorboard]"',
            name=error.name,
        ) from error
    return SimpleNamespace(
        Event=Event, SessionLog=SessionLog, Summary=Summary, SummaryMetadata=SummaryMetadata, TensorProto=TensorProto,
        TensorShapeProto=TensorShapeProto, masked_crc32c=masked_crc32c,
    )  # fmt: skip
