"""Judging: a model or a prediction file, and a dataset, to a report as the field makes it.

`scores` makes answers from models, `challenge` reads and writes them as the challenges' files,
`report` judges them, `page` shows a report in a browser.
"""
