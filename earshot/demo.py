"""The whole job in minutes: soundscapes are made, learnt from, judged on, indexed, searched.

Or a folder of the user's own is indexed with the default model and searched. Every step is the
public function behind the command of its name, and picks up what an earlier run left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from earshot.commands import counting, print_json
from earshot.console import TrainingWatch, print_hits, print_note, print_summary, progress_bar
from earshot.datasets import load
from earshot.datasets.soundscape import describe_scenes, write_soundscapes
from earshot.evaluate.report import Report
from earshot.evaluate.systems import Judging, evaluate, questions
from earshot.library import index, open_or_create
from earshot.metrics.chance import by_chance
from earshot.recipes.demo import demo
from earshot.search import Searcher
from earshot.terminal import say
from earshot.train.recipe import Recipe
from earshot.train.start import Job, train
from earshot.types import Hit, Question

HERE = Path("earshot-demo")
METRICS = ("mAP@10", "R@1", "R@5", "R@10")
PROCESSES = 2  # What renders scenes at a time: two cores are what a demo may count on.
# Of soundscapes: the words after the first two queries are in no caption that is trained on.
QUERIES = (
    "church bells",
    "a dog barks while rain falls",
    "an emergency vehicle rushing to an accident",
    "a hungry infant wants its mother",
    "somebody plays a melody on a keyboard instrument",
)
OWN_QUERIES = (
    "an ambulance siren",
    "a baby is crying",
    "church bells",
    "a phone is ringing",
    "an owl at night",
)


@dataclass(frozen=True, kw_only=True)
class Demo:
    """How large a demo is, and where it is kept."""

    folder: Path = HERE
    recipe: Recipe = field(default_factory=demo)
    scenes: tuple[tuple[str, int], ...] = (("train", 700), ("validation", 120), ("test", 200))
    """How many of each split."""
    queries: tuple[str, ...] = QUERIES

    def place(self, split: str) -> Path:
        """The folder of a split."""
        return self.folder / "scenes" / split

    @property
    def model(self) -> Path:
        """The folder of the training run."""
        return self.folder / "model"

    @property
    def test(self) -> str:
        """The split that is judged and searched."""
        return self.recipe.data.test.partition(":")[2]

    @property
    def index(self) -> str:
        """The index of the test split."""
        return str(self.folder / "index")


class Clock:
    """How long each step took; what is said of it, unless a program is listening."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[None]:
        """Time a step."""
        started_s = time.monotonic()
        self.say(f"\n{len(self.seconds) + 1}  {name}: {what}")
        yield
        self.seconds[name] = round(time.monotonic() - started_s, 1)
        self.say(f"   {self.seconds[name]:.0f} s")

    def say(self, text: str) -> None:
        """Print to a person."""
        if not self.quiet:
            say(text)


def run(recordings: Path | None, *, as_json: bool = False) -> None:
    """Show everything on soundscapes, or search recordings of the user's own.

    Raises:
        EarshotError: a model's weights are not to be had, or the demo's folder holds other files.
    """
    if recordings is None:
        found = on_soundscapes(Demo(), quiet=as_json)
    else:
        found = on_recordings(recordings, quiet=as_json)
    if as_json:
        print_json(found)


def on_soundscapes(demo: Demo, *, quiet: bool = False) -> dict[str, Any]:
    """Make, train, judge, index, search; what came of it, as JSON has it.

    Raises:
        EarshotError: the sentence encoder is not to be had, or the folder holds other files.
    """
    clock = Clock(quiet=quiet)
    counts = ", ".join(f"{count} {split}" for split, count in demo.scenes)
    with clock.step("soundscapes", f"{counts}; what is in each is known"):
        make_scenes(demo)
    with clock.step("train", "an audio tower from random weights, MiniLM stays as it is"):
        curve = trained(demo, quiet=quiet)
    with clock.step("evaluate", "on test scenes, with pairs of sounds and words not trained on"):
        report = judged(demo)
        metrics, chance = figures(report), chance_of(report)
        clock.say(metrics_table(report, chance))
    with clock.step("index", f"the test scenes into {demo.index}"):
        searcher = indexed(demo, quiet=quiet)
    with clock.step("search", "by sound alone, hits and what these scenes were made of"):
        answers = by_sound(searcher, demo.queries)
        if not quiet:
            show_hits(demo, answers)
    clock.say(farewell(demo, sum(clock.seconds.values())))
    return {
        "seconds": {**clock.seconds, "total": round(sum(clock.seconds.values()), 1)},
        "metrics": metrics,
        "chance": chance,
        "curve": curve,
        "searches": searches(demo.queries, answers),
    }


def make_scenes(demo: Demo) -> None:
    """Write what is missing of the splits."""
    done = 0
    with counting("soundscapes", sum(count for _, count in demo.scenes)) as told:
        for split, count in demo.scenes:
            write_soundscapes(
                demo.place(split),
                split=split,
                scenes=count,
                workers=PROCESSES if count > PROCESSES * 8 else 1,
                report=counted_from(done, told),
            )
            done += count


def counted_from(start: int, told: Callable[[int], None]) -> Callable[[int, int], None]:
    """Tell how many scenes are done of all splits, not of one."""
    return lambda done, total: told(start + done)


def trained(demo: Demo, *, quiet: bool) -> list[dict[str, float]]:
    """Train, or go on; the curve: every epoch's loss and metrics on the validation scenes."""
    job = Job(
        recipe=demo.recipe,
        data=demo.folder / "scenes",
        out=demo.model,
        resume=(demo.model / "recipe.json").is_file(),
        device="cpu",
    )
    watch = TrainingWatch(demo.recipe.epochs, demo.recipe.select, quiet=quiet)
    history = train(job, lambda first: watch)
    return [{name: row[name] for name in ("epoch", "loss", *METRICS)} for row in history]


def judged(demo: Demo) -> Report:
    """How well the best epoch answers captions and queries about the test scenes."""
    asked = questions(load("soundscapes", demo.place(demo.test), demo.test))
    with counting("listening", len(asked.asked.clips)) as done:
        return evaluate([str(demo.model)], asked, Judging(device="cpu", done=done))[0].report


def figures(report: Report) -> dict[str, float]:
    """The estimates alone."""
    return {name: report.metrics[name].mean for name in METRICS}


def chance_of(report: Report) -> dict[str, float]:
    """What a random order of the same clips is expected to reach on the same queries."""
    items, counts = len(report.answers.items), report.ranks.count
    return {
        name: sum(by_chance(name, int(count), items) for count in counts) / len(counts)
        for name in METRICS
    }


def metrics_table(report: Report, chance: dict[str, float]) -> str:
    """A line per metric: figure, interval, chance, and how many times that."""
    lines = [
        f"   {len(report.dataset.captions)} queries, {len(report.answers.items)} scenes",
        f"   {'':8}{'reached':>8}  {'95 % interval':<16}  {'by chance':>9}  {'times':>5}",
    ]
    for name in METRICS:
        found = report.metrics[name]
        lines.append(
            f"   {name:<8}{found.mean:>8.3f}  [{found.low:.3f}, {found.high:.3f}]"
            f"  {chance[name]:>9.3f}  {found.mean / chance[name]:>5.1f}"
        )
    return "\n".join(lines)


def indexed(demo: Demo, *, quiet: bool) -> Searcher:
    """The test scenes in an index of the trained model."""
    store, model = open_or_create(demo.index, str(demo.model), "cpu")
    with progress_bar("indexing") as report:
        summary = index([demo.place(demo.test)], store, model, report=report)
    if not quiet:
        print_summary(summary, demo.index, str(demo.model))
    return Searcher(model, store)


def by_sound(searcher: Searcher, queries: Sequence[str]) -> list[tuple[Hit, ...]]:
    """Three hits a query: the captions beside the scenes are notes in the index, and the truth."""
    asked = [Question(text=query, by="sound") for query in queries]
    return [answer.hits for answer in searcher.ask_many(asked, 3)]


def show_hits(demo: Demo, answers: Sequence[Sequence[Hit]]) -> None:
    """Each query's hits, each with what its scene was made of."""
    made_of = {
        scene.id: " + ".join(event.source.replace("_", " ") for event in scene.everything)
        for scene in describe_scenes(demo.test, dict(demo.scenes)[demo.test])
    }
    for query, hits in zip(demo.queries, answers, strict=True):
        say(f"   {query}")
        for rank, hit in enumerate(hits, 1):
            name = Path(hit.path).stem
            say(f"   {rank:3d}  {hit.score:5.3f}  {name}  {made_of[name]}")


def searches(queries: Sequence[str], answers: Sequence[Sequence[Hit]]) -> list[dict[str, Any]]:
    """Queries and hits for a program."""
    return [
        {
            "query": query,
            "hits": [{"path": hit.path, "score": round(hit.score, 6)} for hit in hits],
        }
        for query, hits in zip(queries, answers, strict=True)
    ]


def farewell(demo: Demo, seconds: float) -> str:
    """What to do next."""
    return (
        f"\ndone in {seconds:.0f} s; everything is in {demo.folder}\n"
        f'next: earshot search {demo.index} "a bird sings" -k 5\n'
        f"      earshot train demo --data {demo.folder / 'scenes'} --out NEW --set epochs=20\n"
        f"      earshot demo YOUR_FOLDER      your recordings, with the default model"
    )


def on_recordings(recordings: Path, *, quiet: bool = False) -> dict[str, Any]:
    """Index and search a folder with the default model.

    Raises:
        EarshotError: the model's weights are not to be had.
    """
    started_s = time.monotonic()
    uri = str(HERE / "library")
    store, model = open_or_create(uri, None, tell=print_note)
    with progress_bar("indexing") as report:
        summary = index([recordings], store, model, report=report)
    questions = [Question(text=query) for query in OWN_QUERIES]
    answers = Searcher.with_calibration(model, store).ask_many(questions, 3)
    if not quiet:
        print_summary(summary, uri, model.name)
        for query, answer in zip(OWN_QUERIES, answers, strict=True):
            say(f'\nearshot search {uri} "{query}" -k 3')
            print_hits([query], [answer])
        say(f'\nnext: earshot search {uri} "…", or earshot index {recordings} --to INDEX')
    seconds = {"total": round(time.monotonic() - started_s, 1)}
    return {
        "seconds": seconds,
        "searches": searches(OWN_QUERIES, [answer.hits for answer in answers]),
    }
