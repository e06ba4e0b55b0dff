"""From score components to calibrated quality: fitting, applying, certifying."""
