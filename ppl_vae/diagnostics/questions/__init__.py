"""What `ppl-vae diagnose` asks of a run: one question a file, each with a verdict, its evidence and its cause."""
