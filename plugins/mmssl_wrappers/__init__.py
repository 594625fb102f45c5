"""Pairing sources that are made of other ones."""
