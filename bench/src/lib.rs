//! Benchmarks against floors; prints tables. Not part of the tests.
