"""Trust: calibration, the unknown answer, and labels that look wrong."""
