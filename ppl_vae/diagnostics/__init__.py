"""What a fitted run says: rates, likelihood, information, ArviZ and pictures."""
