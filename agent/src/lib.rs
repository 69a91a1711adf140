//! The long-running agent: loop, journal, log pipeline, capacity, health, metrics.
