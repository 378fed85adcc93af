"""Encoders and decoders: torch modules and their Equinox twins."""
