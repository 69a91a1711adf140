//! Secret providers, sealing to an agent's key, and the masker.
