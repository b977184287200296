"""A training loop written by hand: `Accelerator`, and what its `prepare` gives back."""
