"""How many soundscapes one core makes in a second: description, audio and captions.

python benchmarks/soundscape_speed.py
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from earshot.datasets.soundscape import captions, describe_scenes, render

RESULT = Path(__file__).with_suffix(".json")
SCENES, WARM_UP = 300, 20


def main() -> None:
    for scene in describe_scenes("validation", WARM_UP):
        render(scene)
    # Processor time: what other programs take of the core is not ours.
    start = time.process_time()
    seconds = 0.0
    for scene in describe_scenes("train", SCENES):
        seconds += len(render(scene)) / 32_000
        captions(scene)
    taken_s = time.process_time() - start
    result = {
        "scenes": SCENES,
        "scenes_per_s_per_core": round(SCENES / taken_s, 1),
        "times_real_time": round(seconds / taken_s),
        "mean_duration_s": round(seconds / SCENES, 2),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(result)


if __name__ == "__main__":
    main()
