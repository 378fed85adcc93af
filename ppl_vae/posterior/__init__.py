"""What a fitted run says of data: codes, anomaly scores, completions of missing entries, and files of them."""

from ppl_vae.posterior.codes import Codes, encode
from ppl_vae.posterior.completion import Completion, complete
from ppl_vae.posterior.missing import missing_pattern
from ppl_vae.posterior.scores import Scores, score

__all__ = ["Codes", "Completion", "Scores", "complete", "encode", "missing_pattern", "score"]
