"""Rows on disk and in memory: loading, selecting, mapping. Files are listed in reading order in
the README; nothing in here imports torch unless the torch format is asked for."""
