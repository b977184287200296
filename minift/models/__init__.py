"""Encoders, from the file format up: weights, the encoder, what each family changes, Auto classes."""
