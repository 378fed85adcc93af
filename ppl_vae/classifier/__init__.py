"""A small image classifier, trained on labelled data and kept in the cache: sample-quality scores look through it.

It has nothing to do with any model of the suite, so that all runs on a data set are scored by the same one.
Images are channel-last, with values in [0, 1]. Importing this loads torch.
"""

from ppl_vae.classifier.network import Device
from ppl_vae.classifier.store import Classifier, ClassifierRecord, house_classifier

__all__ = ["Classifier", "ClassifierRecord", "Device", "house_classifier"]
