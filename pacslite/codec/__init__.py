"""Pixels and transfer syntaxes: the only user of pixel codecs."""
