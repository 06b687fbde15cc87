"""Datasets in the formats that other programs read; each module writes one of them."""
