//! Runs one history: a life in a climate, with faults, from a seed; on a thread of its own time.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use api_server::{Definitions, Write};

use crate::fault::{Address, Fault, Faults};
use crate::life::{self, Life};
use crate::permit_states;
use crate::world::{Call, Climate, World};

/// A history that broke a rule once is run again so often to see it broken again.
const MAX_RUNS: usize = 12;

/// What a history is made of.
#[derive(Clone)]
pub struct History {
    /// The life.
    pub life: Life,
    /// How unkind the world is.
    pub climate: Climate,
    /// What goes wrong.
    pub faults: Faults,
    /// Beside these, a fault strikes one call in so many, as the seed says.
    pub one_in: Option<u64>,
    /// The seed of all randomness.
    pub seed: u64,
}

/// What came of it.
pub struct Outcome {
    /// The first rule that was broken, with its sentence.
    pub broken: Option<String>,
    /// All calls.
    pub calls: Vec<Call>,
    /// How many of them the life itself took; the others are of the quiet after it.
    pub calls_of_life: usize,
    /// All writes to Kubernetes.
    pub writes: Vec<Arc<Write>>,
    /// The faults that struck.
    pub struck: BTreeMap<Address, Fault>,
    /// Virtual time that passed.
    pub elapsed: Duration,
    /// Reasons of conditions, and how often they were written.
    pub reasons: BTreeMap<String, usize>,
    /// Steps that were seen.
    pub steps: BTreeMap<&'static str, usize>,
    /// States that permits were in, and how often they came into it.
    pub permits: BTreeMap<&'static str, usize>,
}

static DEFINITIONS: LazyLock<Definitions> = LazyLock::new(|| {
    let files = vpptoken_operator::api::crds_as_files().unwrap_or_default();
    let manifests = files.iter().filter_map(|(_, yaml)| serde_yaml_ng::from_str(yaml).ok()).collect();
    Definitions::new(manifests).unwrap_or_default()
});

static BUILDER: LazyLock<reqwest::Client> = LazyLock::new(|| {
    // reqwest wants a provider, although nothing is sent.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::new()
});

thread_local! {
    static PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Counts panics: a panic of the operator breaks its history.
pub fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            print(info);
        }));
    });
}

impl History {
    /// Runs it.
    pub fn run(&self) -> Outcome {
        fastrand::seed(self.seed);
        PANICS.set(0);
        permit_states::begin();
        permit_states::take();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let Ok(runtime) = runtime else { return Outcome::failed("the runtime can't be built") };
        let outcome = runtime.block_on(self.live());
        drop(runtime);
        outcome
    }

    /// Runs it until it breaks a rule, a few times at the most: of several VppTokens that are due at the same time, the one
    /// that a hash map has first goes first, and hash maps can't be seeded.
    pub fn run_until_broken(&self) -> Outcome {
        for _ in 1..MAX_RUNS {
            let outcome = self.run();
            if outcome.broken.is_some() {
                return outcome;
            }
        }
        self.run()
    }

    async fn live(&self) -> Outcome {
        let world =
            World::new(&DEFINITIONS, &BUILDER, self.climate, |_| {}, self.faults.clone(), self.one_in, self.seed);
        let mut result = (self.life.script)(&world).await;
        let calls_of_life = world.call_count();
        if result.is_ok() {
            result = life::stays(&world).await;
        }
        world.end();
        let judge = &mut *world.judge();
        judge.finish(&world);
        if PANICS.get() > 0 {
            judge.fail("runs: the operator panicked".into());
        }
        Outcome {
            broken: judge.broken().or(result.err()),
            calls: world.calls(),
            calls_of_life,
            writes: world.api.writes(),
            struck: world.struck(),
            elapsed: world.elapsed(),
            reasons: judge.reasons().clone(),
            steps: judge.steps().clone(),
            permits: permit_states::take(),
        }
    }

    /// The same, with other faults.
    pub fn with(&self, faults: Faults) -> Self {
        Self { faults, ..self.clone() }
    }

    /// The same, with the faults that struck named one by one.
    pub fn explicit(&self, outcome: &Outcome) -> Self {
        Self { faults: Faults(outcome.struck.clone()), one_in: None, ..self.clone() }
    }

    /// A command that runs it again.
    pub fn replay(&self) -> String {
        format!(
            "proof replay --life {} --list-lag {} --expiry-lag {} --seed {} --faults '{}'",
            self.life.name,
            self.climate.list_lag.as_secs(),
            self.climate.expiry_lag.as_secs(),
            self.seed,
            self.faults
        )
    }

    /// The same history with as few faults as still break it.
    pub fn shortest(&self) -> Self {
        let mut shortest = self.clone();
        loop {
            let fewer = shortest.faults.0.keys().find_map(|address| {
                let mut faults = shortest.faults.clone();
                faults.0.remove(address);
                let history = shortest.with(faults);
                history.run_until_broken().broken.is_some().then_some(history)
            });
            match fewer {
                Some(history) => shortest = history,
                None => return shortest,
            }
        }
    }
}

impl Outcome {
    /// The calls in order, with what they were answered.
    pub fn log(&self) -> Vec<String> {
        let line = |call: &Call| format!("{} p{} {} {}", call.at, call.process, call.address, call.answer);
        self.calls.iter().map(line).collect()
    }

    fn failed(why: &str) -> Self {
        Self {
            broken: Some(why.into()),
            calls: Vec::new(),
            calls_of_life: 0,
            writes: Vec::new(),
            struck: BTreeMap::new(),
            elapsed: Duration::ZERO,
            reasons: BTreeMap::new(),
            steps: BTreeMap::new(),
            permits: BTreeMap::new(),
        }
    }
}
