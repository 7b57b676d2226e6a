"""Make `earshot/data/phrase_table.npz` from the tables of words; run it when these change."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import earshot
from earshot.checkpoints import sentence_folder
from earshot.encoders import tags
from earshot.encoders.sentence import sentence_encoder

TABLE = Path(earshot.__file__).parent / "data" / "phrase_table.npz"


def main() -> None:
    phrases = tags.load_phrases()
    vectors = sentence_encoder(sentence_folder("all-MiniLM-L6-v2"))(phrases.texts)
    fitted = tags.fit_phrases(vectors, phrases.tags)
    tags.save_table(dataclasses.replace(fitted, fitted_on=tags.phrases_hash(phrases)), TABLE)
    print(f"{len(phrases.texts)} phrases, {TABLE.stat().st_size / 1e6:.1f} MB in {TABLE}")


if __name__ == "__main__":
    main()
