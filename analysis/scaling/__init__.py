"""Scaling laws and IsoFLOP fits with their certificates."""
