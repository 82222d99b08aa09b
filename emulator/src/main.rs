//! The binary: arguments in, one call out.

use graph_emulator::cli;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    cli::run().await
}
