"""Closed forms on arrays, written once over the array API standard."""
