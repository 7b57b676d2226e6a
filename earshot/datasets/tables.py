"""CSV files as people and spreadsheets write them: with a BOM, CRLF, quotes and ragged rows.

Every error names the file, the line and what was expected, because a row that is silently dropped
or shifted is a wrong result that nobody sees.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from earshot.types import EarshotError

FIELD_BYTES = 1 << 22  # a list of thousands of relevant files is one field


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: where it stands, and its values by column."""

    path: Path
    line: int
    values: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.values[column]

    def get(self, column: str) -> str:
        """A value without blanks around it; empty where the table has no such column."""
        return self.values.get(column, "").strip()

    def required(self, column: str) -> str:
        """A value without blanks around it.

        Raises:
            EarshotError: there is none.
        """
        if value := self.get(column):
            return value
        raise self.error(f"the column {column} is empty")

    def error(self, what: str) -> EarshotError:
        """A user's error about this row."""
        return EarshotError(f"{self.path}, line {self.line}: {what}")


def read_rows(
    path: Path, required: Sequence[str] = (), *, encoding: str = "utf-8-sig", delimiter: str = ","
) -> list[Row]:
    """All rows of a CSV file with a header; blank lines are none.

    Raises:
        EarshotError: no such file, another encoding, a missing or repeated column, a ragged row.
    """
    try:
        with path.open(encoding=encoding, newline="") as file:
            return list(_rows(path, file, required, delimiter))
    except OSError as error:
        raise EarshotError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise EarshotError(
            f"{path}: byte {error.start} is not {encoding.removesuffix('-sig')}; "
            f"save the table in that encoding"
        ) from error


def _rows(
    path: Path, lines: Iterable[str], required: Sequence[str], delimiter: str
) -> Iterator[Row]:
    csv.field_size_limit(FIELD_BYTES)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise EarshotError(f"{path}, line {reader.line_num}: {error}") from error
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            _check_header(path, header, required)
        elif len(cells) != len(header):
            what = f"{len(cells)} values where the header has {len(header)} columns"
            hint = "quote values that hold commas or line breaks"
            raise EarshotError(f"{path}, line {reader.line_num}: {what}; {hint}")
        else:
            values = dict(zip(header, cells, strict=True))
            yield Row(path=path, line=reader.line_num, values=values)
    if header is None:
        raise EarshotError(f"{path}: empty; expected a header with {', '.join(required)}")


def _check_header(path: Path, header: Sequence[str], required: Sequence[str]) -> None:
    if missing := [column for column in required if column not in header]:
        raise EarshotError(
            f"{path}: no column {', '.join(missing)}; it has {', '.join(header)[:200]}"
        )
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise EarshotError(f"{path}: the column {', '.join(repeated)} is there more than once")
