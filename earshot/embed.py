"""Files to embeddings: workers decode and embed, broken files are told apart, memory is bounded.

One idea: a worker takes a handful of files all the way (hash, decode, resample, segment, embed).
The libraries release the interpreter's lock, so threads scale; on a CPU each worker computes with
one thread, which wastes nothing on waiting for others; on a GPU the same code keeps it fed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import batched, islice
from pathlib import Path

import numpy as np

from earshot import audio
from earshot.files import sha256_of
from earshot.types import AudioError, EmbeddedFile, FileRecord, FileState, Model, Segment
