"""earshot finds sounds by description: type words, get the recordings and the seconds in them."""

__version__ = "0.1.0"
