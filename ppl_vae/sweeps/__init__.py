"""Many fits of one variant, over betas and seeds, each in its run folder, with one table of their results."""
