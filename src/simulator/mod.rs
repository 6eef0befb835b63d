//! A stand-in for the Patchworks APIs.
