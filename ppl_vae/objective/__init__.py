"""Reads traces into terms; the bases that losses extend."""
