"""Measure the accuracy, diversity and calibration of a model, from several samples per problem."""
