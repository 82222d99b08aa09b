//! Random histories: a seed makes the same history again, and a failure is shortened before it is told.

use std::collections::BTreeMap;

use crate::people::{Deed, manifest};
use crate::rules::Broken;
use crate::universe::{APPLE_IDS, COUNTRIES, FILES};
use crate::world::{Action, Fate, MOODS, Tally, Treatment, World};

/// SplitMix64: small, good enough, and the same everywhere.
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    fn small(&mut self, limit: usize) -> u8 {
        u8::try_from(self.below(limit)).unwrap_or(0)
    }

    /// True in so many of a hundred cases.
    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// A history: what it begins with, and what happens.
#[derive(Clone, Debug)]
pub struct History {
    /// The world at the beginning.
    pub slots: usize,
    /// Processes that there may be.
    pub processes: usize,
    /// What people did before the first process started, and then everything else.
    pub actions: Vec<Action>,
}

/// What came of a history.
#[derive(Clone, Debug)]
pub struct Told {
    /// Which rule was broken, if any.
    pub broken: Option<Broken>,
    /// How often what happened.
    pub tally: BTreeMap<&'static str, u64>,
}

/// A world that a history begins with.
fn empty(slots: usize, processes: usize) -> World {
    let mut world = World::new(slots, processes, true);
    world.tally = Tally(Some(BTreeMap::new()));
    if let Some(spec) = manifest() {
        (0..slots).for_each(|slot| world.create(slot, spec.clone()));
    }
    world
}

impl History {
    /// Makes a history up, and runs it.
    pub fn random(seed: u64) -> (Self, Told) {
        let mut dice = Dice::new(seed);
        let slots = 1 + usize::from(dice.percent(60));
        let processes = 1 + usize::from(dice.percent(30));
        let mut world = empty(slots, processes);
        let mut history = Self { slots, processes, actions: Vec::new() };
        for slot in 0..slots {
            history.act(&mut world, Action::Person(Deed::Secret(slot, dice.small(2))));
        }
        for _ in 0..dice.below(6) {
            let deed = deed(&mut dice, &world);
            history.act(&mut world, Action::Person(deed));
        }
        if dice.percent(30) {
            history.act(&mut world, Action::Habits(dice.percent(70), dice.percent(30)));
        }
        if slots > 1 && dice.percent(10) {
            // Two that name one token.
            history.act(&mut world, Action::Person(Deed::PortalCreate(0, 0)));
            (0..slots).for_each(|slot| history.act(&mut world, Action::Person(Deed::TokenId(slot, 0))));
        }
        history.act(&mut world, Action::Start(0));
        if dice.percent(40) {
            history.act(&mut world, Action::Start(1));
        }
        if dice.percent(50) {
            // Everything is in place when the trouble begins.
            history.act(&mut world, Action::Calm(300));
        }
        // Some histories are long and calm, others short and wild.
        let length = 20 + dice.below(160);
        let mischief = [2, 5, 12, 25][dice.below(4)];
        let people = [1, 3, 8][dice.below(3)];
        let times = [4, 12][dice.below(2)];
        for _ in 0..length {
            if world.broken.is_some() {
                break;
            }
            if let Some(action) = choose(&mut dice, &world, mischief, people, times) {
                history.act(&mut world, action);
            }
        }
        let told = history.end(world);
        (history, told)
    }

    fn act(&mut self, world: &mut World, action: Action) {
        if world.is_possible(&action) {
            world.count(kind(&action));
            world.apply(&action);
            self.actions.push(action);
        }
    }

    fn end(&self, mut world: World) -> Told {
        if world.broken.is_none() {
            world.heal();
            world.arrives();
        }
        world.count("histories");
        Told { broken: world.broken.take(), tally: world.tally.0.take().unwrap_or_default() }
    }

    /// Runs a history; what is not possible (any more) is passed over.
    pub fn run(&self) -> Told {
        let mut world = empty(self.slots, self.processes);
        for action in &self.actions {
            if world.broken.is_some() {
                break;
            }
            if world.is_possible(action) {
                world.apply(action);
            }
        }
        self.end(world)
    }

    /// The actions that are possible, of those that are written down.
    fn trimmed(&self) -> Self {
        let mut world = empty(self.slots, self.processes);
        let mut actions = Vec::new();
        for action in &self.actions {
            if world.broken.is_some() {
                break;
            }
            if world.is_possible(action) {
                world.apply(action);
                actions.push(action.clone());
            }
        }
        Self { actions, ..self.clone() }
    }

    /// The shortest history found that breaks the same rule: by leaving out more and more of it, as long as that does.
    pub fn shrunk(&self, rule: &'static str) -> Self {
        let breaks = |history: &Self| history.run().broken.is_some_and(|broken| broken.rule == rule);
        let mut best = self.trimmed();
        if !breaks(&best) {
            return self.clone();
        }
        loop {
            let before = best.actions.len();
            let mut chunk = (before / 2).max(1);
            loop {
                let mut at = 0;
                while at < best.actions.len() {
                    let end = (at + chunk).min(best.actions.len());
                    let mut shorter = best.clone();
                    shorter.actions.drain(at..end);
                    let mut calm = shorter.clone();
                    calm.actions.insert(at, Action::Calm(60));
                    if breaks(&shorter) {
                        best = shorter.trimmed();
                    } else if end > at + 1 && breaks(&calm) {
                        best = calm.trimmed();
                    } else {
                        at = end;
                    }
                }
                if chunk == 1 {
                    break;
                }
                chunk /= 2;
            }
            if best.processes > 1 {
                let fewer = Self { processes: best.processes - 1, ..best.clone() };
                if breaks(&fewer) {
                    best = fewer.trimmed();
                }
            }
            if best.actions.len() >= before {
                return best;
            }
        }
    }
}

/// What happens next, of what can.
fn choose(dice: &mut Dice, world: &World, mischief: usize, people: usize, times: usize) -> Option<Action> {
    if dice.percent(people) {
        return Some(Action::Person(deed(dice, world)));
    }
    if dice.percent(mischief) {
        let possible: Vec<Action> =
            mischiefs(dice, world).into_iter().filter(|action| world.is_possible(action)).collect();
        return pick(dice, &possible);
    }
    if dice.percent(times) {
        return Some(tick(dice));
    }
    let progress = progress(world);
    match pick(dice, &progress) {
        Some(action) => Some(action),
        // Nothing is to be done: time passes, or somebody does something.
        None if dice.percent(25) => Some(Action::Person(deed(dice, world))),
        None if dice.percent(25) => Some(Action::Calm([30, 100, 1_000, 4_000][dice.below(4)])),
        None => Some(tick(dice)),
    }
}

fn pick(dice: &mut Dice, actions: &[Action]) -> Option<Action> {
    actions.get(dice.below(actions.len())).cloned()
}

/// Short times are more likely than long ones.
fn tick(dice: &mut Dice) -> Action {
    let milliseconds =
        [200, 1_000, 2_000, 5_000, 20_000, 31_000, 61_000, 130_000, 300_000, 600_000, 960_000, 3_700_000];
    let at = dice.below(milliseconds.len());
    Action::Tick(milliseconds[at.min(dice.below(milliseconds.len() + 4))])
}

/// What goes wrong, possible or not.
fn mischiefs(dice: &mut Dice, world: &World) -> Vec<Action> {
    let mut actions = vec![Action::Orphan(0), Action::Orphan(1), Action::LateChange(0), Action::LateChange(1)];
    actions.push(Action::Habits(dice.percent(30), dice.percent(20)));
    actions.push(Action::Mood(if dice.percent(50) { 0 } else { dice.small(MOODS.len()) }));
    let treatments = [Treatment::Unavailable, Treatment::UnavailableAfter, Treatment::Throttled, Treatment::Conflict];
    for p in 0..world.processes.len() {
        actions.extend([Action::Crash(p), Action::Start(p), Action::Relist(p), Action::ListFails(p)]);
        actions.extend([Action::ListTaken(p, 1 + dice.below(3)), Action::ListTaken(p, 1)]);
        for slot in 0..world.slots() {
            for fate in [Fate::LostBefore, Fate::LostAfter, Fate::Late] {
                actions.push(Action::Run(p, slot, fate));
            }
            actions.push(Action::Effect(p, slot, treatments[dice.below(treatments.len())]));
            actions.extend([Action::LoseAnswer(p, slot), Action::LoseAnswer(p, slot)]);
        }
    }
    actions
}

/// What can be done now without anything going wrong.
fn progress(world: &World) -> Vec<Action> {
    let mut actions = Vec::new();
    if world.graph.mood != MOODS[0] {
        actions.push(Action::Mood(0));
    }
    for p in 0..world.processes.len() {
        actions.extend([
            Action::DeliverTenant(p),
            Action::ListBegins(p),
            Action::ListTaken(p, 0),
            Action::ListAnswered(p),
        ]);
        for slot in 0..world.slots() {
            actions.extend([
                Action::Deliver(p, slot),
                Action::DeliverSecret(p, slot),
                Action::Effect(p, slot, Treatment::Fine),
                Action::Answer(p, slot),
                Action::Run(p, slot, Fate::Fine),
                Action::Run(p, slot, Fate::Fine),
            ]);
        }
        if world.processes.iter().all(|process| !process.is_alive) {
            actions.push(Action::Start(p));
        }
    }
    actions.retain(|action| world.is_possible(action));
    actions
}

fn deed(dice: &mut Dice, world: &World) -> Deed {
    let slot = dice.below(world.slots());
    let token = dice.below(world.graph.tokens().len().max(1));
    let files = FILES.len();
    match dice.below(34) {
        0..=3 => Deed::Secret(slot, dice.small(3)),
        4 | 5 => Deed::Secret(slot, dice.small(files + 3)),
        6 => Deed::Country(slot, dice.small(2)),
        7 => Deed::Country(slot, dice.small(COUNTRIES.len() + 1)),
        8 => Deed::UpdateApps(slot, dice.small(3)),
        9 => Deed::AccountType(slot),
        10 => Deed::AppleId(slot, dice.small(APPLE_IDS.len())),
        11 => Deed::Organization(slot, dice.small(3)),
        12 | 13 => Deed::DeletionPolicy(slot, dice.percent(75)),
        14 => Deed::CreationPolicy(slot, dice.percent(50)),
        15 => Deed::Suspend(slot, dice.percent(40)),
        16 => Deed::Observe(slot, dice.percent(50)),
        17 => Deed::TokenId(slot, dice.below(4)),
        18 | 19 => Deed::Sync(slot),
        20 => Deed::Schedule(slot, dice.percent(60)),
        21..=23 => Deed::Delete(slot),
        24..=26 => Deed::Create(slot),
        27 => {
            if dice.percent(20) {
                Deed::Definition
            } else if dice.percent(20) {
                Deed::Namespace
            } else {
                Deed::Allow(dice.small(4))
            }
        }
        28 => Deed::PortalDelete(token),
        29 => Deed::PortalAppleId(token, dice.small(2)),
        30 => Deed::PortalCountry(token, dice.small(2)),
        31 => Deed::PortalRenew(token, dice.small(3)),
        32 => Deed::PortalCreate(dice.small(files), dice.small(2)),
        _ => Deed::PortalSync(token),
    }
}

/// What an action is called in the table.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Start(_) => "a process starts",
        Action::Crash(_) => "a process dies",
        Action::Relist(_) => "a watch begins anew",
        Action::Run(_, _, Fate::LostBefore) => "a call to Kubernetes never arrives",
        Action::Run(_, _, Fate::LostAfter) => "an answer of Kubernetes is lost",
        Action::Orphan(_) => "a request takes effect after nobody waits for it",
        Action::LateChange(_) => "a late change to Kubernetes takes effect",
        Action::Mood(_) => "Graph's mood changes",
        Action::Habits(..) => "Graph's habits change",
        Action::Person(deed) => match deed {
            Deed::Secret(..) => "a person changes a Secret",
            Deed::Delete(_) => "a person deletes a VppToken",
            Deed::Create(_) => "a person creates a VppToken",
            Deed::Definition => "a person deletes the definition",
            Deed::Namespace => "a person deletes the namespace",
            Deed::Suspend(..) | Deed::Observe(..) => "a person suspends, observes, or resumes",
            Deed::Sync(_) => "a person asks for a sync",
            Deed::PortalDelete(_)
            | Deed::PortalAppleId(..)
            | Deed::PortalCountry(..)
            | Deed::PortalRenew(..)
            | Deed::PortalCreate(..)
            | Deed::PortalSync(_) => "a person acts in the portal",
            _ => "a person changes a manifest or the tenant",
        },
        Action::Tick(_) => "time passes",
        Action::Calm(_) => "everything goes well for a while",
        _ => "other transitions",
    }
}
