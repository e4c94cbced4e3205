"""How a stage's process ends: one sentence for what a user can mend, no orphan when `dvc repro` is killed."""

import errno
import gc
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator

from pipeline.errors import UserError
from pipeline.processes import die_with_driver

# A corpus is millions of objects that live as long as the stage: looking through them for rubbish again and again took
# half of the time of reading it.
COLLECT_SELDOM = (200_000, 50, 50)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ROOM_WORDS = ("no space left", "disk is full", "quota exceeded", "file too large")
WRITE_FAILED_WORDS = ("failed writing file", "file write failed", "disk i/o error")


def run_stage(main: Callable[[], None]) -> None:
    """Run a stage's `main`; exit 2 with one sentence on bad input or a full disk, 130 when interrupted."""
    die_with_driver()
    _quieten()
    gc.set_threshold(*COLLECT_SELDOM)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        main()
    except UserError as error:
        _end(str(error), 2)
    except KeyboardInterrupt:
        _end("Interrupted; the next `dvc repro` goes on from the last checkpoint.", 130)
    except Exception as error:
        if not is_disk_full(error):
            raise
        file = next(
            (each.filename for each in _chain(error) if isinstance(each, OSError) and each.filename),
            "the project's folder",
        )
        _end(
            f"{file}: the disk is full; free some space, then `dvc repro` goes on from the checkpoint.",
            2,
        )


def _quieten() -> None:
    """Lightning's hints about hardware and its vendor's products say nothing about the run."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")


def is_disk_full(error: BaseException) -> bool:
    """Whether `error`, or its cause, is a write that found no room. torch and SQLite say so only in words."""
    for each in _chain(error):
        words = str(each).lower()
        if isinstance(each, OSError) and each.errno in NO_ROOM:
            return True
        if any(word in words for word in NO_ROOM_WORDS):
            return True
        if any(word in words for word in WRITE_FAILED_WORDS) and shutil.disk_usage(".").free < 1 << 20:
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _terminated(signum: int, frame: object) -> None:
    raise SystemExit(128 + signum)


def _end(sentence: str, status: int) -> None:
    sys.stdout.flush()
    print(sentence, file=sys.stderr, flush=True)
    raise SystemExit(status)
