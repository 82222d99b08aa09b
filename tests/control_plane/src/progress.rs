//! What the person at the terminal sees while tools are found, downloaded or built.

use std::{
    fmt,
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// Time between two lines that show that a long step still runs.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where progress goes: the terminal, nowhere, or a function.
#[derive(Clone)]
pub struct Progress(Option<Arc<Line>>);

type Line = dyn Fn(&str) + Send + Sync;

impl Progress {
    /// Lines on standard error.
    #[must_use]
    pub fn stderr() -> Self {
        Self::to(|line| eprintln!("control-plane: {line}"))
    }

    /// Nothing at all.
    #[must_use]
    pub fn silent() -> Self {
        Self(None)
    }

    /// Each line to a function.
    #[must_use]
    pub fn to(line: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(line)))
    }

    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if let Some(line) = &self.0 {
            line(text.as_ref());
        }
    }

    /// Runs a long step, prints every ten seconds that it still runs, and at its end how long it took.
    pub(crate) async fn during<F: Future>(&self, what: &str, step: F) -> F::Output {
        let began = Instant::now();
        let mut step = pin!(step);
        let output = loop {
            match tokio::time::timeout(HEARTBEAT, step.as_mut()).await {
                Ok(output) => break output,
                Err(_) => self.line(format!("  still {what}: {} s", began.elapsed().as_secs())),
            }
        };
        self.line(format!("  {what}: took {:.0} s", began.elapsed().as_secs_f64()));
        output
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Progress(on)" } else { "Progress(silent)" })
    }
}
