"""Encoders, one file each, chosen by name."""
