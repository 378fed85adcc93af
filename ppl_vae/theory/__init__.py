"""Closed forms on NumPy arrays: what rates buy, and models that are solved exactly; in nats per datum."""
