"""What a person sees on a terminal: progress, summaries, hits, tables; 80 columns are enough."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from earshot.library import Progress as Indexed
from earshot.library import Summary
from earshot.objects import is_uri
from earshot.terminal import printable, say
from earshot.types import Answer, Hit

if TYPE_CHECKING:
    from earshot.model.export import Export

SHOWN_BROKEN = 20
SHOWN_NEAREST = 3
COLUMNS = 80


@contextmanager
def progress_bar(task: str) -> Iterator[Callable[[Indexed], None]]:
    """Show a bar with files/s, × real time and time left; on a terminal only."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda progress: None
        return
    with Progress(*columns, console=console, transient=True) as bar:
        shown = bar.add_task(task, total=None, state="comparing with the files")

        def report(progress: Indexed) -> None:
            rate = progress.files_done / progress.elapsed_s
            state = (
                f"{progress.files_done}/{progress.files_total} {rate:.0f} files/s "
                f"{progress.audio_s / progress.elapsed_s:.0f}x real time"
            )
            bar.update(
                shown, total=progress.files_total, completed=progress.files_done, state=state
            )

        yield report


def print_note(line: str) -> None:
    """What a person should know, and a program that reads the output need not: standard error."""
    say(f"earshot: {printable(line)}", error=True)


def print_summary(summary: Summary, index: str, model: str) -> None:
    """What an index run did, the broken files last."""
    counts = {
        "new": summary.added,
        "changed": summary.changed,
        "unchanged": summary.unchanged,
        **({"moved": summary.moved} if summary.moved else {}),
        "removed": summary.removed,
        "broken": len(summary.broken),
    }
    say(", ".join(f"{count} {what}" for what, count in counts.items()))
    if summary.audio_s:
        say(
            f"{duration(summary.audio_s)} of audio heard by model {model} in "
            f"{duration(summary.elapsed_s)} ({summary.audio_s / summary.elapsed_s:.0f}x real time)"
        )
    print_broken(summary.broken)
    say(f'search it: earshot search {index} "a dog barking"')


def print_broken(broken: Mapping[str, str]) -> None:
    """Files that cannot be used, with the reason; the rest of a long list is counted."""
    for path in list(broken)[:SHOWN_BROKEN]:
        say(f"broken: {shortest(path)}: {printable(broken[path])}")
    if len(broken) > SHOWN_BROKEN:
        say(f"and {len(broken) - SHOWN_BROKEN} more broken; --json lists all")


def print_hits(queries: Sequence[str], answers: Sequence[Answer]) -> None:
    """Ranked hits: score or probability, seconds, path, and why, where words say so."""
    for query, answer in zip(queries, answers, strict=True):
        if len(queries) > 1:
            say(f"{printable(query)}:")
        if not answer.hits:
            say("no recording matches")
        elif not answer.found:
            say("nothing here sounds like that; the nearest:")
        shown = answer.hits if answer.found else answer.hits[:SHOWN_NEAREST]
        for rank, hit in enumerate(shown, 1):
            say(hit_line(rank, hit))


def hit_line(rank: int, hit: Hit) -> str:
    """A hit in one line, its reasons in a second one where 80 columns do not hold both."""
    score = f"{hit.score:5.3f}" if hit.probability is None else f"{hit.probability:4.0%} "
    seconds = f"{clock(hit.start_s)}–{clock(hit.end_s)}"
    line = f"{rank:3d}  {score}  {seconds:>13}  {shortest(hit.path)}"
    why = reasons(hit)
    if not why:
        return line
    return f"{line}  {why}" if len(line) + 2 + len(why) <= COLUMNS else f"{line}\n{'':5}{why}"


def reasons(hit: Hit) -> str:
    """Why a hit is one: the words that matched beside its sound, and its copies."""
    found = [f"{match.field} {printable(match.found)!r}" for match in hit.words]
    if found and hit.sound is not None:
        found.append(f"sound {hit.sound:.2f}")
    if hit.copies:
        found.append(f"{len(hit.copies)} {'copy' if len(hit.copies) == 1 else 'copies'}")
    return shorten(", ".join(dict.fromkeys(found)), COLUMNS - 5, placeholder=" …")


class TrainingWatch:
    """A line per epoch, and on a terminal a bar within it; loggers get the same figures."""

    def __init__(
        self, epochs: int, select: str, loggers: Sequence[Any] = (), *, quiet: bool = False
    ) -> None:
        self.epochs, self.select, self.loggers, self.quiet = epochs, select, loggers, quiet
        self.console = Console(stderr=True)
        self.started_s = time.monotonic()
        self.steps_done = 0  # Of all epochs: loggers want every figure at one that never falls.

    def step(self, epoch: int, step: int, steps: int, loss: float | None) -> None:
        """Show where the epoch is."""
        self.steps_done = epoch * steps + step
        if loss is None:
            return
        for logger in self.loggers:
            logger.log_metrics({"step_loss": loss}, step=self.steps_done)
        if self.console.is_terminal and not self.quiet:
            rate = (step or 1) / (time.monotonic() - self.started_s)
            text = f"epoch {epoch + 1}/{self.epochs}  step {step}/{steps}  loss {loss:.3f}"
            self.console.print(f"{text}  {rate:.1f} steps/s", end="\r", highlight=False)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Show and log the figures of an epoch."""
        took_s, self.started_s = time.monotonic() - self.started_s, time.monotonic()
        for logger in self.loggers:
            logger.log_metrics(row, step=self.steps_done)
        if not self.quiet:
            say(
                f"epoch {row['epoch']:>3}/{self.epochs}  loss {row['loss']:.3f}  validation "
                f"{row['validation_loss']:.3f}  {self.select} {row[self.select]:.4f}  "
                f"{duration(took_s)}",
            )


def print_models(described: Sequence[Mapping[str, Any]]) -> None:
    """One line per model, then the checkpoints that become models when they are imported."""
    say(f"{'name':<28}{'size':>8}{'mAP':>7}  {'licence':<27}here")
    for model in described:
        size = f"{model['parameters'] / 1e6:.1f} M" if model.get("parameters") else ""
        quality = f"{model['audioset_map']:.3f}" if "audioset_map" in model else ""
        state = "yes" if model["here"] else "no" if model.get("usable", True) else "unusable"
        say(f"{model['name']:<28}{size:>8}{quality:>7}  {model['licence']:<27}{state}")
    say("\nmAP: published, on AudioSet. What is not here is fetched when it is first used.")
    say("`earshot models NAME` tells all; some are fetched by hand, or imported.")


def print_model(described: Mapping[str, Any]) -> None:
    """All that is known of one model."""
    width = max(map(len, described))
    for key, value in described.items():
        if value not in ("", []):
            say(f"{key:<{width}}  {printable(str(value))}")


def shortest(path: str) -> str:
    """A path as short as it can be given: relative where that is shorter."""
    with suppress(ValueError):  # Another drive.
        path = path if is_uri(path) else min(path, os.path.relpath(path), key=len)
    return printable(path)


def clock(seconds: float) -> str:
    """1:02:03.4 as a person writes it."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def duration(seconds: float) -> str:
    """A span of time in the unit that fits."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def print_export(export: Export) -> None:
    """Print what was written, and what it costs in quality."""
    say(f"{export.folder}: audio.onnx, text.onnx, tokenizer.json, export.json")
    for side, quality in (("audio", export.audio), ("text", export.text)):
        if quality.int8:
            lost = f"{quality.cosine_loss_mean:.2g}, at most {quality.cosine_loss_max:.2g}"
            say(f"{side}: eight bits; 1 - cosine with the original is {lost}")
        else:
            say(f"{side}: single precision; differs by at most {quality.largest:.2g}")
    say(f"use it with --model {export.folder}")
