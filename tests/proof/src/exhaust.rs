//! All histories within small bounds: a model checker goes through everything that can happen, in every order.
//!
//! # What is checked
//!
//! In every state that no rule has been broken. Then that everything arrives: the world heals ([`World::heal`]) and runs on
//! from every state at the bounds, which is one in which only time is left to pass and the configuration has no more of it.
//! From any other state the steps in which all goes well are explored themselves, and end in such a state. Beside that, the
//! world heals in one of so many of all other states, chosen by their hash, because a process that dies for good, or a
//! request that never arrives, is another thing than one that is late.
//!
//! # What is reduced, and why nothing is lost
//!
//! - The reads of a reconcile that follow each other are one step, as [`World`] says. What changes between them, nobody can
//!   tell from a change right before or right after, but for a live read of the object and the reads after it: those are
//!   the random histories' part.
//! - Time passes only when nothing else is left to be done without a fault, and then to the moment at which something is due.
//!   What is slower is a fault like others: a pause, which a configuration has or has not. A list begins a moment after what
//!   it is to show, so that what began first can be told.
//! - That moment of something being due is rounded up to a whole second: nobody wakes on time.
//! - Leave to write is one step with the live read that follows, but where that read may fail: what changes between them
//!   might as well have changed before.
//! - What a person does comes in a given order, at any moment.
//! - Two processes never announce a create in the same moment, which is how announcements are told apart.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::people::{Deed, manifest};
use crate::process::Stage;
use crate::rules::Broken;
use crate::world::{Action, Fate, Tally, Treatment, World};

/// How often what may happen in one history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Faults of all kinds together.
    pub faults: u8,
    /// A process dies.
    pub crashes: u8,
    /// An answer of Graph is lost, before or after the request takes effect.
    pub answers: u8,
    /// A call to the API server never arrives, arrives late, or is not answered.
    pub calls: u8,
    /// Graph says no, and may have done it all the same.
    pub refusals: u8,
    /// A list shows what was.
    pub old_lists: u8,
    /// A list fails.
    pub failed_lists: u8,
    /// The watches of a process begin anew.
    pub relists: u8,
    /// Time passes although something is left to be done.
    pub pauses: u8,
    /// Time passes until something is due. No fault.
    pub waits: u8,
    /// A list begins a moment later than what it is to show. No fault.
    pub moments: u8,
}

/// A small world, and what may happen in it.
#[derive(Clone, Copy, Debug)]
pub struct Configuration {
    /// What it is called.
    pub name: &'static str,
    /// What it is about, in one sentence.
    pub about: &'static str,
    /// VppTokens.
    pub slots: usize,
    /// Processes, which may all believe that they lead.
    pub processes: usize,
    /// What happens first, always in this way.
    pub before: &'static [Action],
    /// What people do, in this order.
    pub deeds: &'static [Deed],
    /// What may happen how often.
    pub bounds: Bounds,
    /// How long a pause is, in milliseconds.
    pub pauses: &'static [i64],
    /// Each process does one thing after the other: first its list, which is one step, then it hears all that it is told, then
    /// it works. What overlaps within one process is what the other configurations are about.
    pub is_coarse: bool,
    /// Of so many states that are not at the bounds, the world heals in one.
    pub heals_one_in: u64,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Move {
    /// It happens now.
    Now(Action),
    /// It happens a moment later.
    AMomentLater(Action),
    /// Time passes until something is due, in milliseconds.
    Wait(i64),
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Now(action) => format!("{action:?}"),
            Self::AMomentLater(action) => format!("{action:?}, a moment later"),
            Self::Wait(milliseconds) => format!("Wait({milliseconds})"),
        })
    }
}

/// A state: a world, and what may still happen in it.
#[derive(Clone, Debug, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "values of the product are compared by their hash here")]
pub struct State {
    pub(crate) world: World,
    left: Bounds,
    deeds_done: usize,
}

impl State {
    fn print(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.print() == other.print()
    }
}

/// The smallest time that a clock can tell here.
const MOMENT: SignedDuration = SignedDuration::from_millis(1);

impl Configuration {
    /// What everything begins with.
    pub(crate) fn beginning(&self) -> State {
        let mut world = World::new(self.slots, self.processes, true);
        world.graph.sync_takes = 1;
        if let Some(spec) = manifest() {
            (0..self.slots).for_each(|slot| world.create(slot, spec.clone()));
        }
        for action in self.before {
            if world.is_possible(action) {
                world.apply(action);
            }
        }
        // From here on time moves only when it is said to.
        world.is_fine = false;
        world.tally = Tally(Some(BTreeMap::new()));
        let whole_second = whole_second(world.now);
        world.pass(whole_second);
        State { world, left: self.bounds, deeds_done: 0 }
    }

    /// What can be done now without a fault.
    fn progress(&self, state: &State, moves: &mut Vec<Move>) {
        let world = &state.world;
        if world.processes.iter().all(|process| !process.is_alive) {
            moves.extend((0..self.processes).map(|p| Move::Now(Action::Start(p))));
        }
        for p in 0..self.processes {
            for does in [Self::lists, Self::is_told, Self::works] {
                let before = moves.len();
                does(self, state, p, moves);
                if self.is_coarse && moves.len() > before {
                    break;
                }
            }
        }
    }

    /// What a process can do about its list.
    fn lists(&self, state: &State, p: usize, moves: &mut Vec<Move>) {
        let world = &state.world;
        let actions = [Action::ListTaken(p, 0), Action::ListAnswered(p)];
        moves.extend(actions.into_iter().filter(|action| world.is_possible(action)).map(Move::Now));
        let begins = Action::ListBegins(p);
        if world.is_possible(&begins) {
            let session = &world.processes[p].session;
            if session.wanted_after.max(session.snapshot.last_list()).is_none_or(|after| after < world.now) {
                moves.push(Move::Now(begins));
            } else if state.left.moments > 0 {
                moves.push(Move::AMomentLater(begins));
            }
        }
    }

    /// What a process can be told.
    fn is_told(&self, state: &State, p: usize, moves: &mut Vec<Move>) {
        let told = (0..self.slots).flat_map(|slot| [Action::Deliver(p, slot), Action::DeliverSecret(p, slot)]);
        let told = told.chain([Action::DeliverTenant(p)]);
        moves.extend(told.filter(|action| state.world.is_possible(action)).map(Move::Now));
    }

    /// What a process can do about its VppTokens, and Graph about its requests.
    fn works(&self, state: &State, p: usize, moves: &mut Vec<Move>) {
        let would_announce_as_another = self.would_announce_as_another(state, p);
        for slot in 0..self.slots {
            let actions =
                [Action::Effect(p, slot, Treatment::Fine), Action::Answer(p, slot), Action::Run(p, slot, Fate::Fine)];
            for action in actions.into_iter().filter(|action| state.world.is_possible(action)) {
                match action {
                    Action::Run(..) if would_announce_as_another => {
                        if state.left.moments > 0 {
                            moves.push(Move::AMomentLater(action));
                        }
                    }
                    action => moves.push(Move::Now(action)),
                }
            }
        }
    }

    /// Another process has announced a create at this very time, by which announcements are told apart: no two clocks show
    /// the same nanosecond.
    fn would_announce_as_another(&self, state: &State, p: usize) -> bool {
        let world = &state.world;
        let others = world.processes.iter().enumerate().filter(|(other, process)| *other != p && process.is_alive);
        let mut announced = others.flat_map(|(_, process)| {
            let objects = world.api.objects.iter().flatten();
            objects.filter_map(|object| process.desk().page(&object.uid).memory.unsent_create)
        });
        announced.any(|unsent| unsent.since == world.now)
    }

    /// What goes wrong.
    fn faults(&self, state: &State, moves: &mut Vec<Move>) {
        let (world, left) = (&state.world, state.left);
        if left.faults == 0 {
            return;
        }
        let mut may = |budget: u8, action: Action| {
            if budget > 0 && world.is_possible(&action) {
                moves.push(Move::Now(action));
            }
        };
        for p in 0..self.processes {
            may(left.crashes, Action::Crash(p));
            may(left.relists, Action::Relist(p));
            may(left.failed_lists, Action::ListFails(p));
            for older in 1..=world.graph.older_states() {
                may(left.old_lists, Action::ListTaken(p, older));
            }
            for slot in 0..self.slots {
                may(left.answers, Action::LoseAnswer(p, slot));
                for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Late] {
                    may(left.calls, Action::Run(p, slot, fate));
                }
                for treatment in
                    [Treatment::Unavailable, Treatment::UnavailableAfter, Treatment::Throttled, Treatment::Conflict]
                {
                    may(left.refusals, Action::Effect(p, slot, treatment));
                }
            }
        }
        for pause in self.pauses {
            may(left.pauses, Action::Tick(*pause));
        }
    }

    /// Only time is left to pass, and there is no more of it.
    fn is_at_the_bounds(&self, state: &State) -> bool {
        let mut moves = Vec::new();
        self.progress(state, &mut moves);
        moves.is_empty() && state.left.waits == 0
    }

    fn heals_here(&self, state: &State) -> bool {
        self.is_at_the_bounds(state) || state.print().is_multiple_of(self.heals_one_in.max(1))
    }

    /// What breaks in a state, or after it when the world heals.
    fn broken(&self, state: &State) -> Option<Broken> {
        if state.world.broken.is_some() {
            return state.world.broken.clone();
        }
        if !self.heals_here(state) {
            return None;
        }
        let mut world = state.world.clone();
        world.is_fine = true;
        world.tally = Tally(None);
        world.heal();
        world.arrives();
        world.broken
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    let second = Timestamp::from_second(time.as_second()).unwrap_or(time);
    if second < time { second + SignedDuration::from_secs(1) } else { second }
}

/// How long until something is due in a process that lives.
fn until_due(world: &World) -> Option<i64> {
    let alive = (0..world.processes.len()).filter(|p| world.processes[*p].is_alive);
    let due = whole_second(alive.map(|p| world.next_time(p)).min()?).max(world.now + MOMENT);
    i64::try_from(due.duration_since(world.now).as_millis()).ok()
}

impl Configuration {
    /// Everything that may happen next.
    fn moves(&self, state: &State, moves: &mut Vec<Move>) {
        let world = &state.world;
        if world.broken.is_some() {
            return;
        }
        self.progress(state, moves);
        if moves.is_empty() && state.left.waits > 0 {
            moves.extend(until_due(world).map(Move::Wait));
        }
        let mut now = |action: Action| {
            let is_possible = world.is_possible(&action);
            if is_possible {
                moves.push(Move::Now(action));
            }
            is_possible
        };
        if world.processes.iter().any(|process| process.is_alive) {
            (0..self.processes).for_each(|p| {
                now(Action::Start(p));
            });
        }
        let mut n = 0;
        while now(Action::Orphan(n)) {
            n += 1;
        }
        let mut n = 0;
        while now(Action::LateChange(n)) {
            n += 1;
        }
        if let Some(deed) = self.deeds.get(state.deeds_done) {
            now(Action::Person(deed.clone()));
        }
        self.faults(state, moves);
    }

    /// The state after a step.
    fn after(&self, state: &State, step: &Move) -> State {
        let mut next = state.clone();
        let (world, left) = (&mut next.world, &mut next.left);
        let spent = match step {
            Move::Now(Action::Crash(_)) => Some(&mut left.crashes),
            Move::Now(Action::Relist(_)) => Some(&mut left.relists),
            Move::Now(Action::ListFails(_)) => Some(&mut left.failed_lists),
            Move::Now(Action::ListTaken(_, 1..)) => Some(&mut left.old_lists),
            Move::Now(Action::LoseAnswer(..)) => Some(&mut left.answers),
            Move::Now(Action::Run(_, _, fate)) if *fate != Fate::Fine => Some(&mut left.calls),
            Move::Now(Action::Effect(_, _, treatment)) if *treatment != Treatment::Fine => Some(&mut left.refusals),
            Move::Now(Action::Tick(_)) => Some(&mut left.pauses),
            Move::Now(_) => None,
            Move::AMomentLater(_) => {
                left.moments = left.moments.saturating_sub(1);
                None
            }
            Move::Wait(_) => {
                left.waits = left.waits.saturating_sub(1);
                None
            }
        };
        if let Some(spent) = spent {
            *spent = spent.saturating_sub(1);
            left.faults = left.faults.saturating_sub(1);
        }
        match step {
            Move::Now(action) => {
                next.deeds_done += usize::from(matches!(action, Action::Person(_)));
                world.apply(action);
            }
            Move::AMomentLater(action) => {
                let then = world.now + MOMENT;
                world.pass(then);
                world.apply(action);
            }
            Move::Wait(milliseconds) => world.apply(&Action::Tick(*milliseconds)),
        }
        if let Move::Now(action) | Move::AMomentLater(action) = step {
            self.goes_on(&mut next, action);
        }
        next
    }

    /// What is part of the same step.
    fn goes_on(&self, state: &mut State, action: &Action) {
        let (world, left) = (&mut state.world, state.left);
        match action {
            Action::ListBegins(p) if self.is_coarse => {
                for action in [Action::ListTaken(*p, 0), Action::ListAnswered(*p)] {
                    if world.is_possible(&action) {
                        world.apply(&action);
                    }
                }
            }
            Action::Run(p, slot, _)
                if (left.calls == 0 || left.faults == 0)
                    && world.processes[*p].running[*slot]
                        .as_ref()
                        .is_some_and(|reconcile| matches!(reconcile.stage, Stage::Live)) =>
            {
                world.apply(action);
            }
            _ => {}
        }
    }
}

/// A configuration that is being explored.
struct Exploration {
    configuration: Configuration,
    beginning: State,
    tally: Mutex<BTreeMap<&'static str, u64>>,
}

impl Exploration {
    fn tally(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model for Exploration {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning.clone()]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        self.configuration.moves(state, moves);
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = self.configuration.after(state, &step);
        let told = next.world.tally.0.replace(BTreeMap::new()).unwrap_or_default();
        let mut tally = self.tally();
        for (what, times) in told {
            *tally.entry(what).or_default() += times;
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let no_rule_is_broken = |model: &Self, state: &State| {
            if model.configuration.heals_here(state) {
                *model.tally().entry("the world heals").or_default() += 1;
            }
            model.configuration.broken(state).is_none()
        };
        vec![Property::always("no rule is broken", no_rule_is_broken)]
    }
}

/// What came of a configuration.
#[derive(Clone, Debug)]
pub struct Explored {
    /// States, as often as they were come by.
    pub states: usize,
    /// Different states.
    pub unique: usize,
    /// The most steps to a state.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// How often what happened.
    pub tally: BTreeMap<&'static str, u64>,
    /// What broke, and the steps to it.
    pub broken: Option<(Broken, Vec<String>)>,
}

impl Configuration {
    /// Goes through everything that can happen.
    pub fn explore(&self, threads: usize) -> Explored {
        self.explore_from(self.beginning(), threads)
    }

    /// The same from another beginning.
    pub(crate) fn explore_from(&self, beginning: State, threads: usize) -> Explored {
        let began = Instant::now();
        let exploration = Exploration { configuration: *self, beginning: beginning.clone(), tally: Mutex::default() };
        let checker =
            exploration.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let broken = checker.discoveries().into_values().next().and_then(|path| {
            let broken = self.broken(path.last_state())?;
            Some((broken, self.told(beginning, &path.into_actions())))
        });
        Explored {
            states: checker.state_count(),
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            took: began.elapsed(),
            tally: checker.model().tally().clone(),
            broken,
        }
    }

    /// The steps, each with what happened in it.
    fn told(&self, mut state: State, moves: &[Move]) -> Vec<String> {
        let mut told = Vec::new();
        for step in moves {
            state = self.after(&state, step);
            let happened = state.world.tally.0.replace(BTreeMap::new()).unwrap_or_default();
            let happened: Vec<&str> = happened.into_keys().collect();
            told.push(format!("{step:<40} {}", happened.join(", ")).trim_end().to_owned());
        }
        told
    }
}

/// Nothing may happen: what a configuration builds on.
const NONE: Bounds = Bounds {
    faults: 0,
    crashes: 0,
    answers: 0,
    calls: 0,
    refusals: 0,
    old_lists: 0,
    failed_lists: 0,
    relists: 0,
    pauses: 0,
    waits: 0,
    moments: 0,
};

/// All of them.
pub const CONFIGURATIONS: &[Configuration] = &[
    Configuration {
        name: "create",
        about: "A VppToken comes by its token, while the process dies, answers of Graph are lost, and Graph says no.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0))],
        deeds: &[],
        bounds: Bounds {
            faults: 2,
            crashes: 1,
            answers: 2,
            refusals: 1,
            failed_lists: 1,
            waits: 6,
            moments: 6,
            ..NONE
        },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "create-calls",
        about: "A VppToken comes by its token, while status writes are lost or late, and the process dies.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0))],
        deeds: &[],
        bounds: Bounds { faults: 2, crashes: 1, answers: 1, calls: 2, relists: 1, waits: 6, moments: 6, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "beside",
        about: "A token is created beside one of the same location, which a person renews with the same file meanwhile.",
        slots: 1,
        processes: 1,
        before: &[
            Action::Person(Deed::Secret(0, 1)),
            Action::Person(Deed::PortalCreate(0, 0)),
            Action::Person(Deed::CreationPolicy(0, true)),
        ],
        deeds: &[Deed::PortalRenew(0, 1)],
        bounds: Bounds { faults: 1, crashes: 1, answers: 1, waits: 4, moments: 5, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "create-stale",
        about: "A VppToken comes by its token, while lists show what was, and the process dies.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0))],
        deeds: &[],
        bounds: Bounds { faults: 2, crashes: 1, old_lists: 2, waits: 3, moments: 5, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "late-secret",
        about: "A person creates the token in the portal, and later puts its file into the Secret.",
        slots: 1,
        processes: 1,
        before: &[Action::Start(0), Action::Calm(30)],
        deeds: &[Deed::PortalCreate(0, 0), Deed::Secret(0, 0)],
        bounds: Bounds { faults: 1, pauses: 1, waits: 1, moments: 3, ..NONE },
        pauses: &[61_000],
        is_coarse: true,
        heals_one_in: 50,
    },
    Configuration {
        name: "two-leaders",
        about: "Two processes both believe that they lead, and create the token of one VppToken.",
        slots: 1,
        processes: 2,
        before: &[Action::Person(Deed::Secret(0, 0))],
        deeds: &[],
        bounds: Bounds { faults: 1, answers: 1, waits: 2, moments: 4, ..NONE },
        pauses: &[],
        is_coarse: true,
        heals_one_in: 50,
    },
    Configuration {
        name: "same-file",
        about: "Two VppTokens have the same file.",
        slots: 2,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Person(Deed::Secret(1, 0))],
        deeds: &[],
        bounds: Bounds { faults: 1, crashes: 1, answers: 1, calls: 1, waits: 4, moments: 6, ..NONE },
        pauses: &[],
        is_coarse: true,
        heals_one_in: 50,
    },
    Configuration {
        name: "adoption",
        about: "Two VppTokens have the same file, and a person has uploaded it in the portal.",
        slots: 2,
        processes: 1,
        before: &[
            Action::Person(Deed::Secret(0, 0)),
            Action::Person(Deed::Secret(1, 0)),
            Action::Person(Deed::PortalCreate(0, 0)),
        ],
        deeds: &[Deed::Delete(0)],
        bounds: Bounds { faults: 1, crashes: 1, calls: 1, waits: 4, moments: 6, ..NONE },
        pauses: &[],
        is_coarse: true,
        heals_one_in: 50,
    },
    Configuration {
        name: "renewal",
        about: "A file is renewed on the same token.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Start(0), Action::Calm(300)],
        deeds: &[Deed::Secret(0, 1)],
        bounds: Bounds { faults: 2, crashes: 1, answers: 1, calls: 1, refusals: 1, waits: 5, moments: 6, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "two-renew",
        about: "A file is renewed while two processes both believe that they lead.",
        slots: 1,
        processes: 2,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Start(0), Action::Calm(300)],
        deeds: &[Deed::Secret(0, 1)],
        bounds: Bounds { faults: 0, waits: 1, moments: 3, ..NONE },
        pauses: &[],
        is_coarse: true,
        heals_one_in: 50,
    },
    Configuration {
        name: "deletion",
        about: "A VppToken with policy Delete is deleted, at any moment since before its token is created.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Person(Deed::DeletionPolicy(0, true))],
        deeds: &[Deed::Delete(0)],
        bounds: Bounds { faults: 1, crashes: 1, answers: 1, calls: 1, waits: 3, moments: 4, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "definition",
        about: "The definition is deleted, and with it a VppToken with policy Delete.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Person(Deed::DeletionPolicy(0, true))],
        deeds: &[Deed::Definition],
        bounds: Bounds { faults: 1, crashes: 1, answers: 1, calls: 1, waits: 3, moments: 4, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "restored",
        about: "A VppToken is restored without its status, and its file is renewed meanwhile.",
        slots: 1,
        processes: 1,
        before: &[
            Action::Person(Deed::Secret(0, 0)),
            Action::Start(0),
            Action::Calm(300),
            Action::Crash(0),
            Action::Person(Deed::Delete(0)),
            Action::Person(Deed::Create(0)),
        ],
        deeds: &[Deed::Secret(0, 1)],
        bounds: Bounds { faults: 2, crashes: 1, answers: 1, calls: 1, waits: 5, moments: 6, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "vanished",
        about: "A person deletes the token in the portal, and lists show what was or fail.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Start(0), Action::Calm(300)],
        deeds: &[Deed::PortalDelete(0)],
        bounds: Bounds {
            faults: 2,
            crashes: 1,
            old_lists: 2,
            failed_lists: 1,
            answers: 1,
            waits: 8,
            moments: 6,
            ..NONE
        },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
    Configuration {
        name: "not-kept",
        about: "Graph accepts a value and does not keep it.",
        slots: 1,
        processes: 1,
        before: &[Action::Person(Deed::Secret(0, 0)), Action::Start(0), Action::Calm(300)],
        deeds: &[Deed::Country(0, 3)],
        bounds: Bounds { faults: 1, crashes: 1, answers: 1, calls: 1, refusals: 1, waits: 8, moments: 10, ..NONE },
        pauses: &[],
        is_coarse: false,
        heals_one_in: 50,
    },
];
