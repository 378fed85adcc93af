"""Observation models: what data they fit and how a network's output becomes a distribution."""
