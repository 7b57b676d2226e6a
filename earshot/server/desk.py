"""The desk that answers, for HTTP and MCP alike: questions in the words of the outside world.

Outside, a recording has an id; inside, a path. This is where one becomes the other.
"""

from __future__ import annotations

import stat
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from threading import Lock, Thread

from earshot.conditions import parse_condition
from earshot.files import home, sha256_of
from earshot.objects import is_uri
from earshot.search import Searcher
from earshot.server.catalogue import Catalogue, id_of
from earshot.server.jobs import Indexer
from earshot.server.pictures import Pictures
from earshot.server.schemas import (
    AnswerOut,
    ClipOut,
    ExampleIn,
    HitOut,
    MomentOut,
    NotesOut,
    QuestionIn,
    WordOut,
)
from earshot.server.settings import ServerConfig
from earshot.server.uploads import Uploads
from earshot.types import (
    Answer,
    Condition,
    EarshotError,
    Example,
    FileRecord,
    FileState,
    Hit,
    Question,
)

# How long after a failure an index that was taken over is opened again.
RETRY_S = 60.0


class UnknownIdError(EarshotError):
    """An id that stands for nothing in the index."""


class Desk:
    """A searcher with all that the server keeps beside it."""

    def __init__(
        self,
        searcher: Searcher,
        config: ServerConfig,
        name: str = "",
        reopen: Callable[[], Searcher] | None = None,
    ) -> None:
        self.searcher, self.config, self.name = searcher, config, name
        self._reopen, self._reopening = reopen, Lock()
        self._next_try_s = 0.0
        self.catalogue = Catalogue(searcher.store)
        self.uploads = Uploads(config.uploads, isolated=config.isolated)
        self.pictures = Pictures(home() / "pictures")
        self.indexer = Indexer(searcher.store, searcher.model, config, self.catalogue.refresh)

    def answer(self, question: QuestionIn) -> AnswerOut:
        """Search.

        Raises:
            EarshotError: an empty question, a senseless filter.
            UnknownIdError: an example that is not there.
        """
        (answer,) = self.answer_each([question])
        if isinstance(answer, EarshotError):
            raise answer
        return answer

    def answer_each(self, questions: Sequence[QuestionIn]) -> list[AnswerOut | EarshotError]:
        """Search for several; what is wrong with a question stands in the place of its answer."""
        started_s = time.perf_counter()
        self.renew()
        inside = [self._inside(question) for question in questions]
        sound = [
            (question, asked.k)
            for question, asked in zip(inside, questions, strict=True)
            if isinstance(question, Question)
        ]
        answers = self.searcher.answer_each([one for one, _ in sound], [k for _, k in sound])
        told = (next(answers) if isinstance(one, Question) else one for one in inside)
        return [
            one if isinstance(one, EarshotError) else self._told(one, started_s) for one in told
        ]

    def encoded(self, questions: Sequence[QuestionIn]) -> list[bytes | Exception]:
        """Answers as they go over the wire."""
        return [
            answer if isinstance(answer, EarshotError) else answer.model_dump_json().encode()
            for answer in self.answer_each(questions)
        ]

    def _inside(self, question: QuestionIn) -> Question | EarshotError:
        try:
            return Question(
                text=question.text.strip(),
                without=tuple(text.strip() for text in question.without if text.strip()),
                like=self.examples(question.like),
                unlike=self.examples(question.unlike),
                where=conditions(question.where),
                by=question.by,
            )
        except EarshotError as error:
            return error

    def _told(self, answer: Answer, started_s: float) -> AnswerOut:
        hits = [shown for hit in answer.hits if (shown := self.hit(hit)) is not None]
        took_ms = 1000 * (time.perf_counter() - started_s)
        return AnswerOut(hits=hits, found=answer.found, took_ms=round(took_ms, 1))

    def warm_up(self) -> None:
        """Answer a first question, which loads what the next ones find loaded."""
        if self.catalogue.now().files:
            self.searcher.ask(Question(text="sound"), 1)

    def renew(self) -> None:
        """Where another model took the index over, begin to open it again; the old one answers on.

        One that cannot be opened, its model say, is tried again after `RETRY_S`.
        """
        if self._reopen is None or not self.searcher.store.replaced:
            return
        if time.monotonic() >= self._next_try_s and self._reopening.acquire(blocking=False):
            Thread(target=self._go_over, args=(self._reopen,), daemon=True).start()

    def _go_over(self, reopen: Callable[[], Searcher]) -> None:
        try:
            searcher = reopen()
            self.catalogue.turn_to(searcher.store)
            self.indexer.turn_to(searcher.store, searcher.model)
            self.searcher = searcher
        except Exception as error:  # noqa: BLE001 - a fault, tried again at once, would be for ever
            self._next_try_s = time.monotonic() + RETRY_S
            warnings.warn(f"the old index answers on: {error}", stacklevel=1)
        finally:
            self._reopening.release()

    def examples(self, given: Sequence[ExampleIn]) -> tuple[Example, ...]:
        """Examples by path."""
        return tuple(
            Example(path=self.record(e.id).state.path, start_s=e.start_s, end_s=e.end_s)
            for e in given
        )

    def record(self, sound_id: str) -> FileRecord:
        """The file of an id, of the index or an upload.

        Raises:
            UnknownIdError: there is none.
        """
        if record := self.catalogue.find(sound_id):
            return record
        if upload := self.uploads.find(sound_id):
            return upload.record
        raise UnknownIdError(f"there is no recording {sound_id[:64]!r}; search again for the ids")

    def hit(self, hit: Hit) -> HitOut | None:
        """A hit with what is known of its clip; None where that was dropped a moment ago."""
        record = self.catalogue.record(hit.path)
        if record is None:
            return None
        copies = (self.catalogue.record(path) for path in hit.copies)
        moments = [MomentOut(start_s=m.start_s, end_s=m.end_s, score=m.score) for m in hit.moments]
        best = MomentOut(start_s=hit.start_s, end_s=hit.end_s, score=hit.score)
        return HitOut(
            clip=clip_out(record),
            score=hit.score,
            start_s=hit.start_s,
            end_s=hit.end_s,
            probability=hit.probability,
            sound=hit.sound,
            words=[WordOut(asked=w.asked, found=w.found, field=w.field) for w in hit.words],
            moments=moments or [best],
            copies=[clip_out(copy) for copy in copies if copy is not None],
        )

    def close(self) -> None:
        """Stop what runs, forget what was brought."""
        self.indexer.stop()
        self.uploads.close()


def require_present(record: FileRecord) -> Path:
    """The file of a record, if it is still what was indexed; one that was touched is read again.

    Raises:
        FileNotFoundError: it is gone, another file is there now, or it lies in an object store.
    """
    path = Path(record.state.path)
    if is_uri(record.state.path):
        raise FileNotFoundError(f"{record.state.path} lies in an object store and is not here")
    try:
        if _is_same(path, record.state):
            return path
    except OSError as error:
        raise FileNotFoundError(f"{path} is gone; index its folder again") from error
    raise FileNotFoundError(f"{path} was changed; index its folder again")


def _is_same(path: Path, state: FileState) -> bool:
    """By size and times, else by content: behind the name may be a link to a file of another's."""
    now = path.stat()
    if now.st_size != state.size_bytes or not stat.S_ISREG(now.st_mode):
        return False
    if (now.st_mtime_ns, now.st_ctime_ns) == (state.mtime_ns, state.ctime_ns):
        return True
    return _content(path, now.st_ino, now.st_mtime_ns, now.st_ctime_ns) == state.sha256


@lru_cache(maxsize=4096)
def _content(path: Path, inode: int, mtime_ns: int, ctime_ns: int) -> str:
    """The hash of a file, read once for each of its states."""
    return sha256_of(path)


def conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Filters as they are written.

    Raises:
        EarshotError: one that cannot be read.
    """
    return tuple(parse_condition(text, local=False) for text in texts)


def clip_out(record: FileRecord) -> ClipOut:
    """A recording as the outside sees it."""
    path, notes = PurePath(record.state.path), record.notes
    return ClipOut(
        id=id_of(record.state.path),
        path=record.state.path,
        name=path.name,
        folder=str(path.parent),
        version=record.state.sha256[:12],
        duration_s=record.duration_s,
        sample_rate_hz=record.sample_rate_hz,
        channels=record.channels,
        notes=NotesOut(
            title=notes.title,
            description=notes.description,
            tags=list(notes.tags),
            category=notes.category,
            creator=notes.creator,
            licence=notes.licence,
            date=notes.date,
        ),
    )
