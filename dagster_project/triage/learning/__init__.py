"""From features and outcomes to a model: baselines, trees, calibration, reasons."""
