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
//! - What a person does comes in a given order, at any moment.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::people::{Deed, manifest};
use crate::rules::Broken;
use crate::world::{Action, Fate, Treatment, World};

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
        match self {
            Self::Now(action) => write!(f, "{action:?}"),
            Self::AMomentLater(action) => write!(f, "{action:?}, a moment later"),
            Self::Wait(milliseconds) => write!(f, "Wait({milliseconds})"),
        }
    }
}

/// A state: a world, and what may still happen in it.
#[derive(Clone, Debug, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "values of the product are compared by their hash here")]
pub struct State {
    world: World,
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
    fn beginning(&self) -> State {
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
        let whole_second = whole_second(world.now);
        world.pass(whole_second);
        State { world, left: self.bounds, deeds_done: 0 }
    }

    /// What can be done now without a fault.
    fn progress(&self, state: &State, moves: &mut Vec<Move>) {
        let world = &state.world;
        let mut now = |action: Action| {
            if world.is_possible(&action) {
                moves.push(Move::Now(action));
            }
        };
        for p in 0..self.processes {
            now(Action::Start(p));
            for slot in 0..self.slots {
                now(Action::Deliver(p, slot));
                now(Action::DeliverSecret(p, slot));
                now(Action::Effect(p, slot, Treatment::Fine));
                now(Action::Answer(p, slot));
                now(Action::Run(p, slot, Fate::Fine));
            }
            now(Action::DeliverTenant(p));
            now(Action::ListTaken(p, 0));
            now(Action::ListAnswered(p));
        }
        for p in 0..self.processes {
            let begins = Action::ListBegins(p);
            if !world.is_possible(&begins) {
                continue;
            }
            let session = &world.processes[p].session;
            if session.wanted_after.max(session.snapshot.last_list()).is_none_or(|after| after < world.now) {
                moves.push(Move::Now(begins));
            } else if state.left.moments > 0 {
                moves.push(Move::AMomentLater(begins));
            }
        }
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

impl Model for Configuration {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        vec![self.beginning()]
    }

    fn actions(&self, state: &State, moves: &mut Vec<Move>) {
        let world = &state.world;
        if world.broken.is_some() {
            return;
        }
        self.progress(state, moves);
        if moves.is_empty() && state.left.waits > 0 {
            moves.extend(until_due(world).map(Move::Wait));
        }
        let mut n = 0;
        while world.is_possible(&Action::Orphan(n)) {
            moves.push(Move::Now(Action::Orphan(n)));
            n += 1;
        }
        moves.extend((0..world.api.late.len()).map(|n| Move::Now(Action::LateChange(n))));
        let deed = self.deeds.get(state.deeds_done).map(|deed| Action::Person(deed.clone()));
        moves.extend(deed.filter(|deed| world.is_possible(deed)).map(Move::Now));
        self.faults(state, moves);
    }

    fn next_state(&self, state: &State, step: Move) -> Option<State> {
        let mut next = state.clone();
        let left = &mut next.left;
        let mut fault = |budget: fn(&mut Bounds) -> &mut u8| {
            left.faults = left.faults.saturating_sub(1);
            let budget = budget(left);
            *budget = budget.saturating_sub(1);
        };
        match &step {
            Move::Now(action) => match action {
                Action::Crash(_) => fault(|left| &mut left.crashes),
                Action::Relist(_) => fault(|left| &mut left.relists),
                Action::ListFails(_) => fault(|left| &mut left.failed_lists),
                Action::ListTaken(_, 1..) => fault(|left| &mut left.old_lists),
                Action::LoseAnswer(..) => fault(|left| &mut left.answers),
                Action::Run(_, _, Fate::LostBefore | Fate::LostAfter | Fate::Late) => fault(|left| &mut left.calls),
                Action::Effect(_, _, treatment) if *treatment != Treatment::Fine => fault(|left| &mut left.refusals),
                Action::Tick(_) => fault(|left| &mut left.pauses),
                Action::Person(_) => next.deeds_done += 1,
                _ => {}
            },
            Move::AMomentLater(_) => left.moments = left.moments.saturating_sub(1),
            Move::Wait(_) => left.waits = left.waits.saturating_sub(1),
        }
        match step {
            Move::Now(action) => next.world.apply(&action),
            Move::AMomentLater(action) => {
                let then = next.world.now + MOMENT;
                next.world.pass(then);
                next.world.apply(&action);
            }
            Move::Wait(milliseconds) => next.world.apply(&Action::Tick(milliseconds)),
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always("no rule is broken", |model: &Self, state: &State| model.broken(state).is_none())]
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
    /// What broke, and the steps to it.
    pub broken: Option<(Broken, Vec<Move>)>,
}

impl Configuration {
    /// Goes through everything that can happen.
    pub fn explore(&self, threads: usize) -> Explored {
        let began = Instant::now();
        let checker = self.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        let path = checker.discoveries().into_values().next();
        let broken = path.and_then(|path| {
            let broken = self.broken(path.last_state())?;
            Some((broken, path.into_actions()))
        });
        Explored {
            states: checker.state_count(),
            unique: checker.unique_state_count(),
            depth: checker.max_depth(),
            took: began.elapsed(),
            broken,
        }
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
pub const CONFIGURATIONS: [Configuration; 1] = [Configuration {
    name: "create",
    about: "One VppToken comes by its token, while the process dies once and an answer of Graph is lost.",
    slots: 1,
    processes: 1,
    before: &[Action::Person(Deed::Secret(0, 0))],
    deeds: &[],
    bounds: Bounds { faults: 2, crashes: 1, answers: 1, waits: 5, moments: 6, ..NONE },
    pauses: &[],
    heals_one_in: 100,
}];
