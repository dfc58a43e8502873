"""Experiments around SC-CLIP: data sets, evaluation, training, and the studies of the chapters.

Everything here stands on `scclip_core`, which holds the method and imports nothing from here.
"""
