"""`python -m earshot` is the command line."""

from earshot.cli import main

main()
