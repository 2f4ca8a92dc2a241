"""Floor 5: accuracy, diversity and calibration of a model, from several samples of each problem."""
