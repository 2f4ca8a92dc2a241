"""Entropy control inside other training frameworks."""
