"""Accuracy, diversity and calibration of a model, from several samples of each problem."""
