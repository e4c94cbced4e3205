"""Sotto: a streaming speech recogniser from audio to a packed file under 1 % of its teacher's bytes."""
