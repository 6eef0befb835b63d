//! patchdrop watches drop folders, checks each file that lands there, sends it to the URL its
//! folder stands for, and moves it to `sent/` or `failed/`.

pub mod model;

pub mod journey;

pub mod world;

pub mod config;

pub mod daemon;

pub mod service;

pub mod simulator;

pub mod telemetry;

pub mod cli;
