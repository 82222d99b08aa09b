#![allow(clippy::unwrap_used, missing_docs)] // a test
//! The short share of `make proof` that `make test` runs: faults spread over all lives and lags, and some random histories.

use std::time::Duration;

use proof::explore::{Tally, kind, one_more, run_all, share};
use proof::history::{History, count_panics};
use proof::judge::STEPS;
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

/// As they show from outside: a GET of a token before an upload counts as `Confirm`, too. The lives that are not here are about
/// what people do wrong, or about several VppTokens whose order is open.
#[test]
fn without_a_fault_a_life_takes_just_the_steps_that_it_needs() {
    let expected = [
        ("create_and_sync", "RecordIntent 1, Create 1, Update 1, Sync 1"),
        ("renew", "RecordIntent 1, Create 1, ConfirmUpload 1, Upload 1, Update 1, Sync 2, Confirm 1"),
        ("drift", "RecordIntent 1, Create 1, Update 2, Sync 1"),
        ("adopt", "Adopt 1, Update 1, Sync 1"),
        ("bind", "Bind 1, ConfirmUpload 1, Upload 1, Update 2, Sync 1, Confirm 1"),
        ("observe", "Bind 1, DeclineSync 1, DeclineUpload 1"),
        ("delete", "AddFinalizer 1, RemoveFinalizer 1, RecordIntent 1, Create 1, Sync 1, Delete 1"),
        ("vanish", "RecordIntent 2, Create 2, Update 1, Sync 2, Confirm 2"),
        ("one_file_for_two", "RecordIntent 1, Create 1, Adopt 1, Sync 1"),
        ("definition_ends", "AddFinalizer 1, RemoveFinalizer 1, RecordIntent 1, Create 1, Sync 1"),
        ("one_apple_id_for_three", "RecordIntent 3, Create 3, Sync 3"),
        ("schedule", "RecordIntent 1, Create 1, Sync 2"),
        ("noted", "RecordIntent 1, Create 1, Note 1, Sync 2"),
        ("suspend", "RecordIntent 1, Create 1, ConfirmUpload 1, Upload 1, Sync 2, Confirm 1"),
        // A tokenId that is set later changes nothing but what the status says; the Secret's file is uploaded on request.
        ("another_id", "RecordIntent 1, Create 1, ConfirmUpload 1, Upload 1, Sync 2, Confirm 1"),
        ("distinct", "RecordIntent 1, Create 1, Update 1, Sync 1"),
        // A namesake takes over the token.
        ("again", "RecordIntent 1, Create 1, Adopt 1, Bind 1, ConfirmUpload 1, Upload 1, Update 1, Sync 2, Confirm 1"),
        // A setting that Graph does not keep is sent three times; then a person asks for another value.
        ("refused", "RecordIntent 2, AbandonIntent 1, Create 1, Update 4, Sync 1"),
    ];
    for (name, steps) in expected {
        let life = LIVES.iter().find(|life| life.name == name).unwrap();
        let outcome = kind(*life, climate(0)).run();
        let count = |step: &&str| outcome.steps.get(*step).map(|count| format!("{step} {count}"));
        let taken: Vec<String> = STEPS.iter().filter_map(count).collect();
        assert_eq!(taken.join(", "), steps, "{name}");
    }
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
