"""Plugins for one run, which `Trainer(callbacks=[...])` takes; so far early stopping."""
