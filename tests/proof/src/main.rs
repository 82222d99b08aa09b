//! `make proof`: runs histories and prints what they came to.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use api_server::Write;
use clap::{Args, Parser, Subcommand};
use proof::explore::{Tally, kind, one_more, run_all, share};
use proof::fault::{Fault, Faults};
use proof::history::{History, count_panics};
use proof::judge::STEPS;
use proof::life::{LIVES, Life};
use proof::permit_states::PERMIT_STATES;
use proof::random::RANDOM;
use proof::world::Climate;
use vpptoken_operator::api::Reason;

/// The operator itself in virtual time: all short lives with one fault, pairs of faults as far as the time goes.
#[derive(Debug, Parser)]
#[command(name = "proof", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every life with one fault at every call, in every climate; then pairs of faults.
    Lives(Lives),
    /// Random histories of larger worlds.
    Random(Random),
    /// For a fault of the operator that was put in on purpose: histories until one is broken, made shortest.
    Hunt(Hunt),
    /// One history, with its calls in order.
    Replay(Replay),
    /// How many histories with one fault make the same calls at the same times when they run again, and in the same order.
    Repeat(Lives),
}

#[derive(Debug, Args)]
struct Lives {
    /// Only this life.
    #[arg(long)]
    life: Option<String>,
    /// Only this kind of fault.
    #[arg(long)]
    fault: Option<Fault>,
    /// Lags of Graph's lists, in seconds.
    #[arg(long, value_delimiter = ',', default_value = "0,20,90")]
    list_lags: Vec<u64>,
    /// At most so many histories with one fault for each life and lag, spread over all; left out: all.
    #[arg(long)]
    singles: Option<usize>,
    /// Time for pairs of faults, in seconds, for all lives together.
    #[arg(long, default_value_t = 0)]
    pairs_seconds: u64,
    /// Threads; left out: one for each processor.
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, Args)]
struct Hunt {
    /// The lag of Graph's lists, in seconds.
    #[arg(long, default_value_t = 0)]
    lag: u64,
    /// So many random histories after all histories with one fault.
    #[arg(long, default_value_t = 3000)]
    random: u64,
}

#[derive(Debug, Args)]
struct Random {
    /// So many of them.
    #[arg(long, default_value_t = 10_000)]
    histories: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault strikes one call in so many.
    #[arg(long, default_value_t = 40)]
    one_in: u64,
    /// No longer than this, in seconds.
    #[arg(long, default_value_t = 86_400)]
    seconds: u64,
    /// Threads; left out: one for each processor.
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Debug, Args)]
struct Replay {
    /// The life.
    #[arg(long)]
    life: String,
    /// Lag of Graph's lists, in seconds.
    #[arg(long, default_value_t = 0)]
    list_lag: u64,
    /// Lag of a new expiry, in seconds.
    #[arg(long, default_value_t = 0)]
    expiry_lag: u64,
    /// The seed.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The faults, as a broken history prints them.
    #[arg(long, default_value = "")]
    faults: Faults,
    /// Print the statuses of VppTokens, too, as they are written.
    #[arg(long)]
    statuses: bool,
}

fn main() -> ExitCode {
    count_panics();
    let outcome = match Cli::parse().command {
        Command::Lives(arguments) => lives(&arguments),
        Command::Random(arguments) => Ok(random(&arguments)),
        Command::Hunt(arguments) => Ok(hunt(&arguments)),
        Command::Replay(arguments) => replay(&arguments),
        Command::Repeat(arguments) => repeat(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("proof: {error}");
            ExitCode::FAILURE
        }
    }
}

fn random(arguments: &Random) -> bool {
    let began = Instant::now();
    let lags = [0, 20, 90];
    let histories: Vec<History> = (arguments.seed..arguments.seed + arguments.histories)
        .map(|seed| {
            let lag = |n: u64| lags[usize::try_from(n % 3).unwrap_or_default()];
            History { seed, one_in: Some(arguments.one_in), ..kind(RANDOM, climate(lag(seed), lag(seed / 3))) }
        })
        .collect();
    let tally = run_all(&histories, threads(arguments.threads), Duration::from_secs(arguments.seconds));
    report(&tally, began.elapsed(), Fault::ALL.into_iter());
    tally.broken.is_empty()
}

/// First all lives without a fault, then one fault at every call in an order that takes all lives in turn, then random ones.
fn hunt(arguments: &Hunt) -> bool {
    let climate = climate(arguments.lag, arguments.lag);
    let bases: Vec<History> = LIVES.iter().map(|life| kind(*life, climate)).collect();
    let mut histories = bases.clone();
    let singles: Vec<Vec<History>> = bases.iter().map(|base| one_more(base, &base.run())).collect();
    for n in 0..singles.iter().map(Vec::len).max().unwrap_or_default() {
        // Neighbours are alike: the next one of a life is far from the last.
        histories.extend(singles.iter().filter(|all| n < all.len()).map(|all| all[n * 7919 % all.len()].clone()));
    }
    histories.extend((1..=arguments.random).map(|seed| History { seed, one_in: Some(40), ..kind(RANDOM, climate) }));
    for (n, history) in histories.iter().enumerate() {
        let outcome = history.run();
        let Some(broken) = &outcome.broken else { continue };
        let shortest = history.explicit(&outcome).shortest();
        let shown = shortest.run_until_broken();
        println!(
            "found: lag {}, history {} of {} ({}), {} faults, {} calls: {}\n  {}",
            arguments.lag,
            n + 1,
            histories.len(),
            history.life.name,
            shortest.faults.0.len(),
            shown.calls.len(),
            shown.broken.as_ref().unwrap_or(broken),
            shortest.replay()
        );
        return false;
    }
    println!("not found: lag {}, {} histories", arguments.lag, histories.len());
    true
}

fn life(name: &str) -> Result<Life, String> {
    LIVES.iter().chain([&RANDOM]).find(|life| life.name == name).copied().ok_or_else(|| {
        let names: Vec<&str> = LIVES.iter().map(|life| life.name).collect();
        format!("there is no life called {name}; there are {}", names.join(", "))
    })
}

fn climate(list_lag: u64, expiry_lag: u64) -> Climate {
    Climate { list_lag: Duration::from_secs(list_lag), expiry_lag: Duration::from_secs(expiry_lag) }
}

fn chosen(arguments: &Lives) -> Result<Vec<Life>, String> {
    match &arguments.life {
        Some(name) => Ok(vec![life(name)?]),
        None => Ok(LIVES.to_vec()),
    }
}

fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn lives(arguments: &Lives) -> Result<bool, String> {
    let lives = chosen(arguments)?;
    let threads = threads(arguments.threads);
    let mut whole = Tally::default();
    let began = Instant::now();
    println!(
        "{:<24} {:>4} {:>6} {:>8} {:>8} {:>7} {:>7} {:>7}",
        "life", "lag", "calls", "singles", "pairs", "struck", "broken", "per s"
    );
    let each = Duration::from_secs(arguments.pairs_seconds)
        / u32::try_from(lives.len() * arguments.list_lags.len()).unwrap_or(1).max(1);
    for life in lives {
        for lag in &arguments.list_lags {
            let started = Instant::now();
            let base = kind(life, climate(*lag, *lag));
            let calm = base.run();
            let mut tally = run_all(std::slice::from_ref(&base), 1, Duration::MAX.min(Duration::from_secs(3600)));
            let mut singles = one_more(&base, &calm);
            if let Some(only) = arguments.fault {
                singles.retain(|history| history.faults.0.values().all(|fault| *fault == only));
            }
            if let Some(most) = arguments.singles {
                singles = share(&singles, most, usize::try_from(*lag).unwrap_or_default());
            }
            let ran = run_all(&singles, threads, Duration::from_secs(24 * 3600));
            let single_count = ran.histories;
            tally.merge(ran);
            let pairs = pairs(&singles, threads, each);
            let pair_count = pairs.histories;
            tally.merge(pairs);
            let rate = tally.histories as f64 / started.elapsed().as_secs_f64();
            println!(
                "{:<24} {:>4} {:>6} {:>8} {:>8} {:>6}% {:>7} {:>7.0}",
                life.name,
                lag,
                calm.calls.len(),
                single_count,
                pair_count,
                100 * tally.struck / tally.histories.max(1),
                tally.broken.len(),
                rate
            );
            whole.merge(tally);
        }
    }
    let faults = Fault::ALL.into_iter().filter(|fault| fault.strikes_in_lives());
    let reached_all = report(&whole, began.elapsed(), faults);
    // One life, or a share of its histories, need not reach all.
    let is_whole = arguments.life.is_none() && arguments.fault.is_none() && arguments.singles.is_none();
    Ok(whole.broken.is_empty() && (reached_all || !is_whole))
}

/// Pairs: the second fault strikes any call after the first, in the history that the first one makes. As many as the time
/// allows, spread over all.
fn pairs(singles: &[History], threads: usize, limit: Duration) -> Tally {
    let mut tally = Tally::default();
    let deadline = Instant::now() + limit;
    let mut round = 0;
    while Instant::now() < deadline && !singles.is_empty() {
        let first = &singles[(round * 7919) % singles.len()];
        let seconds = one_more(first, &first.run());
        let some = share(&seconds, 16 * threads, round);
        tally.merge(run_all(&some, threads, deadline.saturating_duration_since(Instant::now())));
        round += 1;
    }
    tally
}

/// Prints what histories came to, and returns whether every step, every state of permits, every reason and every fault was
/// reached.
fn report(tally: &Tally, took: Duration, faults: impl Iterator<Item = Fault>) -> bool {
    println!(
        "\n{} histories in {:.0} s ({:.0} a second), {} calls, {:.0} virtual hours; {} broken",
        tally.histories,
        took.as_secs_f64(),
        tally.histories as f64 / took.as_secs_f64().max(0.001),
        tally.calls,
        tally.elapsed.as_secs_f64() / 3600.0,
        tally.broken.len()
    );
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let reached = [
        coverage("steps", STEPS.into_iter(), |step| tally.steps.get(step).copied()),
        coverage("permits", PERMIT_STATES.into_iter(), |state| tally.permits.get(state).copied()),
        coverage("reasons", reasons, |reason| tally.reasons.get(reason).copied()),
        coverage("faults", faults, |fault| tally.faults.get(&fault).copied()),
    ];
    let mut shown = std::collections::BTreeMap::<String, usize>::new();
    for (history, broken) in &tally.broken {
        let rule = broken.split(':').next().unwrap_or_default().to_owned();
        let count = shown.entry(rule).or_default();
        *count += 1;
        let shortest = if *count == 1 { history.shortest() } else { history.clone() };
        println!("\n{broken}\n  {}", shortest.replay());
        if *count == 1 {
            print_calls(&shortest, false);
        }
    }
    if !shown.is_empty() {
        println!("\nbroken rules: {}", counts(shown.iter()));
    }
    reached.into_iter().all(|reached| reached)
}

/// Prints how often each was reached, and which never; returns whether all were.
fn coverage<T: Copy + std::fmt::Display>(
    what: &str,
    all: impl Iterator<Item = T>,
    count: impl Fn(T) -> Option<usize>,
) -> bool {
    let (reached, missed): (Vec<T>, Vec<T>) = all.partition(|it| count(*it).is_some());
    let counts: Vec<String> = reached.iter().map(|it| format!("{it} {}", count(*it).unwrap_or_default())).collect();
    println!("\n{what}, {} of {} reached: {}", reached.len(), reached.len() + missed.len(), counts.join(", "));
    if !missed.is_empty() {
        let missed: Vec<String> = missed.iter().map(T::to_string).collect();
        println!("{what} never reached: {}", missed.join(", "));
    }
    missed.is_empty()
}

fn counts<'a, K: std::fmt::Display>(all: impl Iterator<Item = (K, &'a usize)>) -> String {
    all.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

/// Prints the calls of a history, and returns whether nothing was broken.
fn print_calls(history: &History, with_statuses: bool) -> bool {
    let outcome = history.run_until_broken();
    let mut writes = outcome.writes.iter().filter(|write| with_statuses && write.kind == "VppToken").peekable();
    for call in &outcome.calls {
        while let Some(write) = writes.next_if(|write| write.at < call.at) {
            print_write(write);
        }
        let fault = call.fault.map(|fault| format!("  <-- {fault}")).unwrap_or_default();
        println!(
            "  {} p{} {:<60} {}{fault}",
            call.at.strftime("%d %H:%M:%S%.3f"),
            call.process,
            call.address.to_string(),
            call.answer
        );
    }
    writes.for_each(|write| print_write(write));
    println!("  {} calls, {:.0} virtual seconds", outcome.calls.len(), outcome.elapsed.as_secs_f64());
    println!("  {}", outcome.broken.as_deref().unwrap_or("nothing is broken"));
    outcome.broken.is_none()
}

/// Who wrote a VppToken, its conditions, and the rest of its status.
fn print_write(write: &Write) {
    let mut status = write.new.as_ref().map(|new| new["status"].clone()).unwrap_or_default();
    let conditions = status.as_object_mut().and_then(|status| status.remove("conditions")).unwrap_or_default();
    println!("  {}      {:?} {} by {}", write.at.strftime("%d %H:%M:%S%.3f"), write.verb, write.name, write.manager);
    for condition in conditions.as_array().into_iter().flatten() {
        let [type_, status, reason, message] =
            ["type", "status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default());
        println!("{:22}{type_} {status} {reason}: {message}", "");
    }
    println!("{:22}{status}", "");
}

fn replay(arguments: &Replay) -> Result<bool, String> {
    let history = History {
        life: life(&arguments.life)?,
        climate: climate(arguments.list_lag, arguments.expiry_lag),
        faults: arguments.faults.clone(),
        one_in: None,
        seed: arguments.seed,
    };
    Ok(print_calls(&history, arguments.statuses))
}

fn repeat(arguments: &Lives) -> Result<bool, String> {
    let runs = 20;
    println!("{:<24} {:>10} {:>10}", "life", "same calls", "same order");
    for life in chosen(arguments)? {
        let (mut same_calls, mut same_order) = (0, 0);
        for seed in 0..runs {
            let base = History { seed, ..kind(life, climate(20, 20)) };
            let singles = one_more(&base, &base.run());
            let history = &singles[usize::try_from(seed).unwrap_or_default() * 97 % singles.len()];
            let [mut one, mut other] = [history, history].map(|history| history.run().log());
            same_order += usize::from(one == other);
            one.sort();
            other.sort();
            same_calls += usize::from(one == other);
        }
        println!("{:<24} {:>7}/{runs} {:>7}/{runs}", life.name, same_calls, same_order);
    }
    Ok(true)
}
