"""Distributions that the backends lack, or lack in the accuracy asked for; one file each backend and family."""
