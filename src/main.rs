//! Arguments in, one call out.

fn main() -> std::process::ExitCode {
    vpptoken_operator::cli::run()
}
