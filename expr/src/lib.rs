//! Expressions: scanner, values and evaluator. Pure.
