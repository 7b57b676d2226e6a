"""The sources: what each is, how it sounds, which of its attributes are heard.

A source sounds once (a bark, countable) or lasts (rain). `attributes` names what can be low or high
about it; everything else about a sounding is chance. A sound is a pure function of the source, the
attributes and the generator's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from earshot.datasets.soundscape import alarms, animals, impacts, machines, music, people, weather
from earshot.datasets.soundscape.bodies import (
    BELL,
    GUNSHOT,
    HAMMER,
    KNOCK,
    PIANO,
    SHATTER,
    SLAM,
    XYLOPHONE,
)
from earshot.datasets.soundscape.call import Call, utter
from earshot.datasets.soundscape.hit import Hit, one
from earshot.datasets.soundscape.machinery import (
    BEE,
    CAR,
    CHAINSAW,
    CRICKET,
    HELICOPTER,
    PROPELLER,
    TRAIN,
)
from earshot.datasets.soundscape.motor import Motor, turn
from earshot.datasets.soundscape.synth import Voice, Wave
from earshot.datasets.soundscape.voices import BABY, CAT, CROW, DOG, DUCK, FROG, OWL, SCREAM, SHEEP

Make = Callable[[Voice], Wave]
# How long a lasting event lasts.
LASTING_S = (2.0, 4.5)
ATTRIBUTES = {"p": "pitch", "r": "rate", "b": "brightness"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of sound.

    `kinds` are what it is an example of; two of one kind never overlap. `counts` says how often it
    may sound in one event, nothing if it lasts; one sounding is at most `longest_s` long and
    followed by `gap_s`. A `backdrop` may lie behind a whole scene.
    """

    name: str
    make: Make
    attributes: tuple[str, ...]
    kinds: tuple[str, ...]
    counts: tuple[int, ...] = ()
    longest_s: float = 0.0
    gap_s: float = 0.3
    backdrop: bool = False

    @property
    def lasts(self) -> bool:
        """Whether it goes on, rather than sounding once or several times."""
        return not self.counts


def lasting(name: str, make: Make, letters: str, *kinds: str, backdrop: bool = False) -> Source:
    """A source that goes on for some seconds."""
    attributes = tuple(ATTRIBUTES[letter] for letter in letters)
    return Source(name=name, make=make, attributes=attributes, kinds=kinds, backdrop=backdrop)


def single(name: str, make: Make, letters: str, *kinds: str, most: int, longest_s: float) -> Source:
    """A source that sounds once, twice … up to `most` times in an event."""
    return Source(
        name=name,
        make=make,
        attributes=tuple(ATTRIBUTES[letter] for letter in letters),
        kinds=kinds,
        counts=tuple(range(1, most + 1)),
        longest_s=longest_s,
    )


def calling(call: Call) -> Make:
    """An animal or person by the numbers of its call."""
    return partial(utter, call=call)


def hitting(hit: Hit) -> Make:
    """A struck thing by its numbers."""
    return partial(one, hit=hit)


def by_pitch(motor: Motor) -> Make:
    """A machine whose speed is heard as pitch."""
    return lambda voice: turn(voice, motor, voice.pitch)


def by_rate(motor: Motor) -> Make:
    """A machine whose speed is heard as beats."""
    return lambda voice: turn(voice, motor, voice.rate)


# "hiss", "drone" and "whistle" are no categories of queries: they keep likes from overlapping.
ALL = (
    lasting("rain", weather.rain, "rb", "weather", "water", "hiss", backdrop=True),
    lasting("wind", weather.wind, "pb", "weather", "hiss", backdrop=True),
    single("thunder", weather.thunder, "b", "weather", "boom", most=1, longest_s=4.0),
    lasting("stream", weather.stream, "p", "water", "hiss", backdrop=True),
    lasting("waves", weather.waves, "rb", "water", "hiss", backdrop=True),
    lasting("pouring", weather.pouring, "p", "water"),
    single("splash", weather.splash, "b", "water", most=3, longest_s=1.2),
    lasting("fire", weather.fire, "rb", "hiss", backdrop=True),
    single("dog", calling(DOG), "p", "animal", most=5, longest_s=0.55),
    single("cat", calling(CAT), "p", "animal", most=3, longest_s=1.1),
    single("cow", animals.cow, "p", "animal", most=2, longest_s=1.65),
    single("sheep", calling(SHEEP), "p", "animal", most=3, longest_s=1.1),
    single("crow", calling(CROW), "p", "animal", "bird", most=4, longest_s=0.75),
    single("owl", calling(OWL), "p", "animal", "bird", "whistle", most=3, longest_s=0.95),
    lasting("songbird", animals.songbird, "pr", "animal", "bird", "whistle", backdrop=True),
    single("duck", calling(DUCK), "p", "animal", "bird", most=5, longest_s=0.5),
    lasting("cricket", by_rate(CRICKET), "", "animal", "insect", backdrop=True),
    single("frog", calling(FROG), "p", "animal", most=4, longest_s=0.75),
    lasting("bee", by_pitch(BEE), "p", "animal", "insect", "drone"),
    single("wolf", animals.wolf, "p", "animal", most=1, longest_s=2.6),
    lasting("applause", people.applause, "rb", "hiss", backdrop=True),
    lasting("heartbeat", people.heartbeat, "r"),
    lasting("whistling", people.whistling, "pr", "whistle"),
    single("baby", calling(BABY), "p", "voice", most=3, longest_s=1.3),
    single("scream", calling(SCREAM), "p", "voice", most=3, longest_s=1.5),
    lasting("car", by_rate(CAR), "rb", "drone", backdrop=True),
    lasting("motorcycle", machines.motorcycle, "rb", "drone"),
    lasting("helicopter", by_rate(HELICOPTER), "rb", "aircraft", "drone", backdrop=True),
    lasting("propeller", by_pitch(PROPELLER), "b", "aircraft", "drone", backdrop=True),
    lasting("train", by_rate(TRAIN), "rb", "drone", "hiss", backdrop=True),
    lasting("chainsaw", by_pitch(CHAINSAW), "pb", "drone"),
    lasting("clock", machines.clock, "pr", backdrop=True),
    single("knock", hitting(KNOCK), "p", "blow", most=5, longest_s=0.3),
    single("hammer", hitting(HAMMER), "b", "blow", most=5, longest_s=0.5),
    single("glass", hitting(SHATTER), "p", "glass", most=2, longest_s=1.3),
    single("gunshot", hitting(GUNSHOT), "b", "boom", most=4, longest_s=1.1),
    single("explosion", impacts.explosion, "b", "boom", most=1, longest_s=2.8),
    single("firework", impacts.firework, "", "boom", most=1, longest_s=2.4),
    single("clink", impacts.clink, "p", "glass", "bell", most=4, longest_s=0.7),
    single("slam", hitting(SLAM), "b", "blow", most=3, longest_s=0.8),
    single("zipper", impacts.zipper, "r", most=3, longest_s=0.7),
    lasting("guitar", music.guitar, "prb", "music"),
    lasting("piano", partial(music.melody, hit=PIANO), "pr", "music", backdrop=True),
    lasting("flute", music.flute, "pr", "music", "whistle"),
    lasting("xylophone", partial(music.melody, hit=XYLOPHONE), "pr", "music", "bell"),
    lasting("drums", music.drums, "r", "music", "blow"),
    single("church_bell", hitting(BELL), "p", "bell", most=2, longest_s=2.0),
    single("bicycle_bell", alarms.bicycle_bell, "p", "bell", most=3, longest_s=1.3),
    lasting("siren", alarms.siren, "pr", "signal", backdrop=True),
    single("car_horn", alarms.car_horn, "p", "horn", "signal", most=4, longest_s=0.7),
    single("ship_horn", alarms.ship_horn, "p", "horn", "signal", most=2, longest_s=2.4),
    single("air_horn", alarms.air_horn, "p", "horn", "signal", most=3, longest_s=1.0),
    single("telephone", alarms.telephone, "p", "telephone_sound", "bell", most=2, longest_s=1.6),
    single("beep", alarms.beep, "p", "signal", most=5, longest_s=0.2),
    lasting("dial_tone", alarms.dial_tone, "pr", "telephone_sound", "signal"),
    lasting("dialling", alarms.dialling, "r", "telephone_sound", "signal"),
    lasting("static", alarms.static, "b", "hiss", backdrop=True),
    single("arcade", alarms.arcade, "p", "signal", most=5, longest_s=0.4),
)
SOURCES: Mapping[str, Source] = {source.name: source for source in ALL}
