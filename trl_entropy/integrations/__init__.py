"""Entropy control in other training frameworks."""
