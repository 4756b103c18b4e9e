"""What matters in a net, and what a cut net learns back: importance, calibration, recovery."""
