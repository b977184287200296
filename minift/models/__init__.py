"""Encoders, from the file format up: weights, encoder, what each family changes, Auto classes."""
