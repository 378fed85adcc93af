"""A report of runs and sweeps as one HTML file that needs nothing else."""

from ppl_vae.report.page import Written, write_report

__all__ = ["Written", "write_report"]
