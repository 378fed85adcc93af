"""What the programs that repeat experiments of papers share; ``inference/reproduce_*.py`` are these programs."""
