//! Metric providers and the analysis behind the Verify step.
