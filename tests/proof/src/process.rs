//! One process of the operator: `operator::run_with`, with the client, the transport, the clock and the generator of the
//! simulation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use vpptoken_operator::clock::{Clock, Random};
use vpptoken_operator::operator::Timings;
use vpptoken_operator::operator::{Environment, REQUEST_READ_TIMEOUT, Settings, WATCH_READ_TIMEOUT, run_with};

use crate::world::{SYSTEM, World};
use crate::{graph, kubernetes};

/// A process, which lives until it is stopped or killed.
pub struct Process {
    /// Counts from 0.
    pub number: u32,
    is_dead: AtomicBool,
    stop: CancellationToken,
    task: Mutex<Option<AbortHandle>>,
}

impl Process {
    /// Starts one.
    pub fn start(world: &World, number: u32) -> Arc<Self> {
        let stop = CancellationToken::new();
        let process = Arc::new(Self { number, is_dead: AtomicBool::new(false), stop, task: Mutex::default() });
        let (for_elapsed, for_wall) = (world.clone(), world.clone());
        let environment = Environment {
            client: kubernetes::client(world, &process, REQUEST_READ_TIMEOUT),
            watching: kubernetes::client(world, &process, WATCH_READ_TIMEOUT),
            transport: graph::transport(world, &process),
            clock: Clock::new(move || for_elapsed.read_clock(), move || for_wall.operator_wall()),
            random: Random::seeded(world.seed ^ u64::from(number)),
        };
        let settings = Settings {
            namespace: Some(SYSTEM.into()),
            watch_namespaces: world.watched_namespaces(),
            listen: ([127, 0, 0, 1], 0).into(),
            graph_endpoint: None,
            login_endpoint: None,
            timings: Timings::default(),
            limits: world.limits(),
        };
        let (world, running) = (world.clone(), Arc::clone(&process));
        let task = tokio::spawn(async move {
            let outcome = run_with(settings, SYSTEM.into(), environment, None, running.stop.clone()).await;
            let was_stopped = running.stop.is_cancelled();
            if let Err(error) = outcome {
                world.judge().fail(format!("runs: process {number} ended by itself: {error}"));
            } else if !was_stopped {
                world.judge().fail(format!("runs: process {number} ended by itself"));
            }
            running.is_dead.store(true, Ordering::SeqCst);
        });
        *process.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        process
    }

    /// From now on none of its calls is answered, and then its tasks end: nobody outside sees anything of it any more.
    pub fn kill(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }

    /// Tells it to stop, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        !self.is_dead.load(Ordering::SeqCst)
    }
}
