"""A part of a run: each job of an array (Slurm, Kubernetes) does the files that are its own.

One idea: a file belongs to a part by the hash of its path, so that jobs that know nothing of each
other share out any folders, again and again in the same way, and write into one index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256

from earshot.library import Plan
from earshot.types import EarshotError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The part of that `number`, 1 to `count`."""

    number: int
    count: int

    def holds(self, path: str) -> bool:
        """Whether a file is of this part."""
        digest = sha256(path.encode(errors="surrogateescape")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def read_shard(text: str) -> Shard:
    """Read `i/N`.

    Raises:
        EarshotError: it is no part.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise EarshotError(f"{text!r} is no part of the files; of N there are 1/N to N/N, as 3/16")
    return Shard(number=number, count=count)


def part_of(plan: Plan, shard: Shard) -> Plan:
    """What of a plan is one part's to do; all other files, also those to forget, are left alone."""
    return replace(
        plan,
        new=tuple(filter(shard.holds, plan.new)),
        changed=tuple(filter(shard.holds, plan.changed)),
        unchanged=tuple(filter(shard.holds, plan.unchanged)),
        touched=tuple(filter(shard.holds, plan.touched)),
        removed=tuple(filter(shard.holds, plan.removed)),
        unreadable={path: why for path, why in plan.unreadable.items() if shard.holds(path)},
    )
