//! Runs the proofs, and prints figures.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::{Parser, Subcommand};
use proof::exhaust::CONFIGURATIONS;
use proof::random::History;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs random histories.
    Random {
        /// How many.
        #[arg(long, default_value_t = 100_000)]
        histories: u64,
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only this one seed, shortened or not, step by step.
        #[arg(long)]
        only: Option<u64>,
    },
    /// Goes through all histories within small bounds.
    Exhaust {
        /// Only the configuration of this name.
        #[arg(long)]
        only: Option<String>,
        /// Lists the configurations and what they are about.
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Random { only: Some(seed), .. } => one(seed),
        Command::Random { histories, seed, .. } => random(seed, histories),
        Command::Exhaust { list: true, .. } => {
            for configuration in CONFIGURATIONS {
                println!("{:<12} {}", configuration.name, configuration.about);
            }
            ExitCode::SUCCESS
        }
        Command::Exhaust { only, .. } => exhaust(only.as_deref()),
    }
}

fn exhaust(only: Option<&str>) -> ExitCode {
    let chosen: Vec<_> =
        CONFIGURATIONS.iter().filter(|configuration| only.is_none_or(|only| only == configuration.name)).collect();
    if chosen.is_empty() {
        eprintln!("There is no such configuration; --list names them.");
        return ExitCode::FAILURE;
    }
    println!("all histories within bounds:");
    println!("{:<12} {:>12} {:>12} {:>6} {:>8}", "", "states", "unique", "depth", "seconds");
    let mut tally: BTreeMap<&'static str, u64> = BTreeMap::new();
    for configuration in chosen {
        let explored = configuration.explore(threads());
        for (what, times) in explored.tally {
            *tally.entry(what).or_default() += times;
        }
        println!(
            "{:<12} {:>12} {:>12} {:>6} {:>8.1}",
            configuration.name,
            explored.states,
            explored.unique,
            explored.depth,
            explored.took.as_secs_f64()
        );
        if let Some((broken, moves)) = explored.broken {
            println!("{} breaks {} after {} steps: {}", configuration.name, broken.rule, moves.len(), broken.what);
            for (number, step) in moves.iter().enumerate() {
                println!("{:4}  {step}", number + 1);
            }
            return ExitCode::FAILURE;
        }
    }
    for (what, times) in &tally {
        println!("{times:>12}  {what}");
    }
    ExitCode::SUCCESS
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn one(seed: u64) -> ExitCode {
    let (history, told) = History::random(seed);
    let Some(broken) = told.broken else {
        println!("seed {seed}: no rule is broken in {} steps", history.actions.len());
        return ExitCode::SUCCESS;
    };
    println!("seed {seed} breaks {} in {} steps: {}", broken.rule, history.actions.len(), broken.what);
    let shortest = history.shrunk(broken.rule);
    let told = shortest.run();
    println!(
        "the shortest history found that breaks it: {} steps, {} VppTokens, {} processes: {}",
        shortest.actions.len(),
        shortest.slots,
        shortest.processes,
        told.broken.map(|broken| broken.what).unwrap_or_default()
    );
    for (number, action) in shortest.actions.iter().enumerate() {
        println!("{:4}  {action:?}", number + 1);
    }
    ExitCode::FAILURE
}

fn random(first: u64, histories: u64) -> ExitCode {
    let began = Instant::now();
    let next = AtomicU64::new(first);
    let failed = AtomicBool::new(false);
    let failure: Mutex<Option<u64>> = Mutex::new(None);
    let tally: Mutex<BTreeMap<&'static str, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                let mut own: BTreeMap<&'static str, u64> = BTreeMap::new();
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + histories {
                        break;
                    }
                    let (_, told) = History::random(seed);
                    for (what, times) in told.tally {
                        *own.entry(what).or_default() += times;
                    }
                    if told.broken.is_some() {
                        failed.store(true, Ordering::Relaxed);
                        let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                        *failure = Some(failure.map_or(seed, |other| other.min(seed)));
                    }
                }
                let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
                for (what, times) in own {
                    *tally.entry(what).or_default() += times;
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("random histories, in {:.1} s:", began.elapsed().as_secs_f64());
    for (what, times) in &tally {
        println!("{times:>12}  {what}");
    }
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failure {
        Some(seed) => one(seed),
        None => ExitCode::SUCCESS,
    }
}
