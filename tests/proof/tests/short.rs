#![allow(clippy::unwrap_used, missing_docs)] // a test
//! The short share of `make proof` that `make test` runs: faults spread over all lives and lags, and some random histories.

use std::time::Duration;

use proof::explore::{Tally, kind, one_more, run_all, share};
use proof::history::{History, count_panics};
use proof::life::LIVES;
use proof::random::RANDOM;
use proof::world::Climate;

fn climate(lag: u64) -> Climate {
    Climate { list_lag: Duration::from_secs(lag), expiry_lag: Duration::from_secs(lag) }
}

fn nothing_is_broken(tally: &Tally) {
    let broken: Vec<String> =
        tally.broken.iter().map(|(history, broken)| format!("{broken}\n  {}", history.shortest().replay())).collect();
    assert!(broken.is_empty(), "{} of {} histories:\n{}", broken.len(), tally.histories, broken.join("\n"));
}

#[test]
fn no_fault_breaks_a_rule_in_a_share_of_all_lives() {
    count_panics();
    // Of each life also the one that makes a second entry if a lost answer is taken for a refusal.
    let lost = |history: &History| {
        let faults = history.faults.to_string();
        faults.contains("POST vppTokens") && faults.ends_with("LostAfter")
    };
    let of_lag = |lag: u64| {
        let lives = LIVES.iter().enumerate().flat_map(|(n, life)| {
            let base = kind(*life, climate(lag));
            let outcome = base.run();
            assert_eq!(outcome.broken, None, "{} without a fault, with a lag of {lag} s", life.name);
            let all = one_more(&base, &outcome);
            let create = all.iter().find(|history| lag == 20 && lost(history)).cloned();
            let others = share(&all, 2 - usize::from(create.is_some()), 5 * n + usize::try_from(lag).unwrap());
            others.into_iter().chain(create)
        });
        lives.collect::<Vec<History>>()
    };
    let histories: Vec<History> = std::thread::scope(|scope| {
        let lags = [0, 20, 90].map(|lag| scope.spawn(move || of_lag(lag)));
        lags.into_iter().flat_map(|lag| lag.join().unwrap()).collect()
    });
    assert!(histories.iter().filter(|history| lost(history)).count() >= 20, "no create was lost");
    nothing_is_broken(&run_all(&histories, 2, Duration::from_secs(120)));
}

#[test]
fn random_histories_break_no_rule() {
    count_panics();
    let history = |seed: u64| {
        let lag = [0, 20, 90][usize::try_from(seed % 3).unwrap()];
        History { seed, one_in: Some(40), ..kind(RANDOM, climate(lag)) }
    };
    let histories: Vec<History> = (0..32).map(history).collect();
    nothing_is_broken(&run_all(&histories, 2, Duration::from_secs(120)));
}

#[test]
fn a_history_with_faults_replays_to_the_letter() {
    count_panics();
    let base = kind(LIVES[0], climate(20));
    let histories = share(&one_more(&base, &base.run()), 10, 3);
    for history in histories {
        let [one, other] = [&history, &history].map(|history| history.run().log());
        let first = one.iter().zip(&other).find(|(one, other)| one != other);
        assert_eq!(first, None, "{}", history.replay());
        assert_eq!(one.len(), other.len(), "{}", history.replay());
    }
}
