//! The demo's place, until it has one of its own.

use super::exit_code::Exit;
use super::failure::Failure;
use super::screen::Screen;

/// The demo.
pub(super) async fn demo(_stay: bool, _screen: &mut Screen<'_>) -> Result<Exit, Failure> {
    std::future::ready(()).await;
    Err(Failure::machine("the demo is not built yet"))
}
