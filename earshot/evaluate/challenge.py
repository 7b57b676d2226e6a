"""The challenges' prediction files, ours or not: read with care, matched with a dataset.

- 2022 to 2024: CSV `caption,file_name_1,...,file_name_10` (or `fname_k`), best first;
- 2025: similarity matrix, CSV with `index` (the query's text) and one column per file name, one row
  per query; beside it a `.meta.yaml` with `submission`, `system`, `results`;
- TREC run: lines `qid Q0 docid rank score tag`. Blanks inside ids are written %20, because TREC
  separates by blanks; the order is by score, then by id, and the rank is not looked at, as
  trec_eval does (which orders equal scores by falling id).

File names and queries match exactly but for blanks around them. Lines are counted from 1, the
header's. A file with a BOM or CRLF is read as any other.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import numpy as np
import yaml

from earshot.evaluate.scores import Answers, Lists, Scores, matrix_scores
from earshot.types import Caption, Dataset, EarshotError

LISTED = 10  # file names per query in the challenges of 2022 to 2024
PLACE = re.compile(r"(?:file_name|fname)_(\d+)")
SECTIONS = ("submission", "system", "results")
FIELD_CHARACTERS = 1 << 22

Format = Literal["matrix", "top10", "trec"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Submission:
    """What a prediction file says, not yet matched with a dataset."""

    path: Path
    format: Format
    queries: tuple[str, ...]
    lines: tuple[int, ...]
    listed: tuple[tuple[str, ...], ...] = ()
    """File names, best first; of a matrix none."""
    items: tuple[str, ...] = ()
    """The columns of a matrix."""
    values: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    """The cells of a matrix, (Q, N)."""

    def error(self, query: int, what: str) -> EarshotError:
        """A user's error about the line of a query."""
        return EarshotError(f"{self.path}, line {self.lines[query]}: {what}")


def read_submission(path: Path) -> Submission:
    """Read a prediction file of any format, told by its first line.

    Raises:
        EarshotError: it is none, or malformed; with file, line and what was expected.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0].strip()
    if len(first.split()) >= 6 and first.split()[1] == "Q0":
        return _read_run(path, text)
    rows = cells(path, text)
    try:
        _, header = next(rows)
    except StopIteration:
        raise EarshotError(f"{path} is empty; expected a header and a row per query") from None
    header = [name.strip() for name in header]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise EarshotError(f"{path}, line 1: the column {twice[0]!r} is there twice")
    if header[0] == "index":
        return _read_matrix(path, header, rows)
    if any(PLACE.fullmatch(name) for name in header):
        return _read_lists(path, header, rows)
    raise EarshotError(
        f"{path}, line 1: {first[:60]!r} is no known header; expected caption,file_name_1,...,"
        "file_name_10 or index,<file names>, or lines of a TREC run: qid Q0 docid rank score tag"
    )


def answers_of(submission: Submission, dataset: Dataset) -> Answers:
    """The answers to the captions of a dataset, in its order, over its clips.

    A query that the dataset holds several times has as many rows in the file, in the same order,
    or one row for all. Rows for queries that are not judged are left alone.

    Raises:
        EarshotError: a query or clip of the dataset that the file lacks, an unknown file name.
    """
    row_of = _match_queries(submission, dataset)
    clips = tuple(sorted(clip.id for clip in dataset.clips))
    if submission.format == "matrix":
        _require_columns(submission, clips)
        return _taken(matrix_scores(submission.items, submission.values), row_of)
    number = {clip: i for i, clip in enumerate(clips)}
    wanted = min(LISTED, len(clips))
    listed = []
    for row in row_of:
        names = submission.listed[row]
        if submission.format == "top10" and len(names) < wanted:
            raise submission.error(row, f"{len(names)} file names; expected {wanted} or more")
        listed.append(np.array([_number(submission, row, n, number) for n in names], dtype=np.intp))
    return Lists(items=clips, listed=tuple(listed))


def require_known_queries(submission: Submission, captions: Sequence[Caption]) -> None:
    """Refuse a query that a dataset does not hold: a typing error would go unseen.

    Raises:
        EarshotError: with the line, and what is close to it.
    """
    known = {name for caption in captions for name in (caption.text.strip(), caption.id)}
    for row, query in enumerate(submission.queries):
        if query not in known:
            close = get_close_matches(query, known, n=1)
            hint = f"; is it {close[0][:60]!r}?" if close else ""
            raise submission.error(row, f"no query {query[:60]!r} in the truth{hint}")


def read_meta(path: Path) -> dict[str, Any]:
    """Read a `.meta.yaml`.

    Raises:
        EarshotError: it is none, or lacks a section.
    """
    try:
        meta = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        what = " ".join(str(error).split())
        raise EarshotError(f"{path}: {what}; expected YAML") from error
    missing = [s for s in SECTIONS if not isinstance(meta, dict) or s not in meta]
    if missing:
        raise EarshotError(f"{path} has no section {missing[0]}; expected {', '.join(SECTIONS)}")
    return dict(meta)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        EarshotError: no such file, or another encoding.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return file.read()
    except OSError as error:
        raise EarshotError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise EarshotError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def cells(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file with their line numbers, of one width, blank lines left out.

    Raises:
        EarshotError: a ragged row, or quotes that do not end.
    """
    csv.field_size_limit(FIELD_CHARACTERS)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    width = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            what = f"{error}; expected CSV with commas and quotes"
            raise EarshotError(f"{path}, line {reader.line_num}: {what}") from error
        if not row:
            continue
        width = width or len(row)
        if len(row) != width:
            what = f"{len(row)} values; expected {width} as in the header, names with commas quoted"
            raise EarshotError(f"{path}, line {reader.line_num}: {what}")
        yield reader.line_num, row


def _read_lists(
    path: Path, header: Sequence[str], rows: Iterable[tuple[int, list[str]]]
) -> Submission:
    caption = next((i for i, n in enumerate(header) if n in ("caption", "query")), None)
    places = {int(m[1]): i for i, name in enumerate(header) if (m := PLACE.fullmatch(name))}
    if caption is None:
        raise EarshotError(f"{path}, line 1: no column caption; it has {', '.join(header)[:80]}")
    if sorted(places) != list(range(1, len(places) + 1)):
        missing = next(k for k in range(1, len(header) + 1) if k not in places)
        raise EarshotError(f"{path}, line 1: no column file_name_{missing}; expected 1 to 10")
    columns = [places[place] for place in sorted(places)]
    queries, lines, listed = [], [], []
    for line, row in rows:
        names = tuple(name for column in columns if (name := row[column].strip()))
        if len(names) < len(columns):
            what = f"{len(names)} file names; expected {len(columns)}, one in each column"
            raise EarshotError(f"{path}, line {line}: {what}")
        _require_once(names, f"{path}, line {line}")
        queries.append(_required_query(row[caption], path, line))
        lines.append(line)
        listed.append(names)
    return Submission(
        path=path, format="top10", queries=tuple(queries), lines=tuple(lines), listed=tuple(listed)
    )


def _read_matrix(
    path: Path, header: Sequence[str], rows: Iterable[tuple[int, list[str]]]
) -> Submission:
    queries, lines, values = [], [], []
    for line, row in rows:
        queries.append(_required_query(row[0], path, line))
        lines.append(line)
        try:
            numbers = np.array(row[1:], dtype=np.float64)
        except ValueError:
            numbers = np.array([math.nan])
        if np.isnan(numbers).any():
            column = next(i for i, cell in enumerate(row) if i and not _is_number(cell))
            what = f"the score of {header[column]!r} is {row[column]!r}; expected a number"
            raise EarshotError(f"{path}, line {line}: {what}")
        values.append(numbers)
    if not values or len(header) < 2:
        raise EarshotError(f"{path}: no scores; expected a column per file name, a row per query")
    return Submission(
        path=path,
        format="matrix",
        queries=tuple(queries),
        lines=tuple(lines),
        items=tuple(header[1:]),
        values=np.stack(values),
    )


def _read_run(path: Path, text: str) -> Submission:
    scored: dict[str, dict[str, float]] = defaultdict(dict)
    line_of: dict[str, int] = {}
    for line, words in enumerate(text.splitlines(), 1):
        if not words.strip():
            continue
        where = f"{path}, line {line}"
        try:
            query, literal, rest = words.split(None, 2)
            item, rank, score, _ = rest.rsplit(None, 3)
        except ValueError:
            literal = rank = score = item = query = ""
        if literal != "Q0" or not rank.lstrip("-").isdecimal() or not _is_number(score):
            what = f"{words[:60]!r}; expected qid Q0 docid rank score tag"
            raise EarshotError(f"{where}: {what}")
        query, item = unquote(query), unquote(item)
        if item in scored[query]:
            raise EarshotError(f"{where}: {item!r} is there twice for the query {query[:60]!r}")
        line_of.setdefault(query, line)
        scored[query][item] = float(score)
    return Submission(
        path=path,
        format="trec",
        queries=tuple(scored),
        lines=tuple(line_of.values()),
        listed=tuple(
            tuple(sorted(of_query, key=lambda item: (-of_query[item], item)))
            for of_query in scored.values()
        ),
    )


def _match_queries(submission: Submission, dataset: Dataset) -> list[int]:
    """The row of the file that answers each caption."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, query in enumerate(submission.queries):
        rows[query].append(row)
    asked = Counter(caption.text.strip() for caption in dataset.captions)
    seen: Counter[str] = Counter()
    found, missing = [], []
    for caption in dataset.captions:
        text = caption.text.strip()
        by_id = rows.get(caption.id, []) if submission.format == "trec" else []
        candidates = by_id or rows.get(text, [])
        if not candidates:
            missing.append(text)
            continue
        if len(candidates) > 1 and len(candidates) < asked[text]:
            what = f"{text[:60]!r} is there {len(candidates)} times; expected {asked[text]}, or 1"
            raise submission.error(candidates[-1], what)
        found.append(candidates[seen[text] if len(candidates) > 1 and not by_id else 0])
        seen[text] += 1
    if missing:
        raise EarshotError(
            f"{submission.path} lacks {len(missing)} of {len(dataset.captions)} queries, the first "
            f"is {missing[0][:60]!r}; expected an answer to each"
        )
    return found


def _require_columns(submission: Submission, clips: Sequence[str]) -> None:
    known, given = set(clips), set(submission.items)
    if unknown := sorted(given - known):
        hint = _close(unknown[0], known)
        raise EarshotError(f"{submission.path}, line 1: no clip {unknown[0]!r} in the truth{hint}")
    if missing := sorted(known - given):
        raise EarshotError(
            f"{submission.path}, line 1: lacks {len(missing)} of {len(known)} clips, the first is "
            f"{missing[0]!r}; expected a column for each"
        )


def _taken(scores: Scores, rows: list[int]) -> Scores:
    """The scores of some rows, in the order given."""
    values = scores.rows(0, scores.query_count)
    if rows != list(range(scores.query_count)):
        values = values[rows]
    return matrix_scores(scores.items, values)


def _number(submission: Submission, row: int, name: str, number: Mapping[str, int]) -> int:
    if name not in number:
        raise submission.error(row, f"no clip {name!r} in the truth{_close(name, number)}")
    return number[name]


def _close(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; is it {close[0]!r}?" if close else ""


def _require_once(names: Sequence[str], where: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise EarshotError(f"{where}: {twice!r} is there twice; expected different file names")


def _required_query(cell: str, path: Path, line: int) -> str:
    if query := cell.strip():
        return query
    raise EarshotError(f"{path}, line {line}: the query is empty; expected its text")


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
