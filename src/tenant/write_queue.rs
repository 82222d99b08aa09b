//! Which write may be sent when: Graph's limit for Intune enrolment resources, in order of urgency. Pure: times in, decisions
//! out.
//!
//! Who wants to write and may not yet has a ticket. A permit that becomes free is reserved for the next ticket, and its
//! VppToken is reconciled, which takes the permit, or leaves it to the next one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::turns::Turns;
use crate::api::NamespacedName;
use crate::backoff::Backoff;

/// How long a write counts.
pub(crate) const WINDOW: Duration = Duration::from_secs(20);
/// A permit that was reserved for so long goes to the next one.
pub(crate) const RESERVATION: Duration = Duration::from_secs(10);
/// Of this many permits, one goes to the schedule that has waited longest, although people wait.
const SHARE_OF_SCHEDULES: u32 = 10;
/// Of the scheduled syncs that may be sent in a window, one in so many may go at once. The others are spread over the window, so
/// that permits become free one by one: a person who comes when the window is full waits for the next one, and not for the end of
/// a burst.
const SHARE_AT_ONCE: usize = 4;
/// Microsoft: without `Retry-After`, wait 3 s, doubling to 180 s.
const THROTTLED: Backoff = Backoff::new(Duration::from_secs(3), Duration::from_secs(180));

/// How urgent a write is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// A person waits for it: a new object, a renewal, a requested sync, a deletion.
    Interactive,
    /// A scheduled sync.
    Scheduled,
}

/// How much may be sent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Writes in any 20 s.
    pub writes: usize,
    /// So many at most are scheduled syncs, which are sent only while there were fewer writes of any kind, so that a person finds a
    /// permit although many are due. One in ten of people's permits, while schedules wait, is theirs all the same.
    pub scheduled: usize,
    /// Permits that are reserved or in use at a time.
    pub at_a_time: usize,
}

impl Default for Limits {
    /// Microsoft documents 100 writes in any 20 s per app and tenant; some are left for others.
    fn default() -> Self {
        Self { writes: 90, scheduled: 80, at_a_time: 12 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It waits for a permit.
    Queued,
    /// A permit is reserved for it.
    Reserved,
    /// Its VppToken has the permit, and nothing was sent yet.
    Held,
    /// It is in no queue: its VppToken has to ask again, and then has waited since before.
    Idle,
}

/// When a ticket was made, and which of those of one moment was first.
type Place = (Instant, u64);

#[derive(Clone, Debug)]
struct Ticket {
    object: NamespacedName,
    priority: Priority,
    place: Place,
    stage: Stage,
}

impl Ticket {
    fn namespace(&self) -> &str {
        &self.object.namespace
    }
}

/// The tickets, permits and pauses of one app registration in one tenant.
#[derive(Debug, Default)]
pub(crate) struct WriteQueue {
    /// What its permits are for, in the log.
    kind: &'static str,
    limits: Limits,
    /// By the UID of the VppToken.
    tickets: BTreeMap<String, Ticket>,
    interactive: Turns<(Place, String)>,
    scheduled: Turns<(Place, String)>,
    next_number: u64,
    /// Permits that are out, also those of writes in flight, whose tickets have served.
    held: InUse,
    /// Until when a permit is reserved for whom, by UID.
    reservations: BTreeMap<String, Instant>,
    reserved: InUse,
    /// When writes were answered. They arrived before that, so Graph's window for them has ended when ours has.
    answered: VecDeque<(Instant, Priority)>,
    interactive_in_a_row: u32,
    /// When a permit was last given to a schedule, or reserved for one; later by what people got since.
    last_scheduled: Option<Instant>,
    /// By the clock that is measured with, and by the one that is shown.
    paused_until: Option<(Instant, Timestamp)>,
    /// How many pauses in a row Graph asked for: each makes the next one longer.
    throttled: u32,
}

/// Permits in use.
#[derive(Clone, Copy, Debug, Default)]
struct InUse {
    interactive: usize,
    scheduled: usize,
}

impl InUse {
    fn of(&mut self, priority: Priority) -> &mut usize {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Scheduled => &mut self.scheduled,
        }
    }

    fn add(&mut self, priority: Priority) {
        *self.of(priority) += 1;
    }

    fn remove(&mut self, priority: Priority) {
        *self.of(priority) = self.of(priority).saturating_sub(1);
    }
}

impl WriteQueue {
    /// An empty queue. Its log says what the permits are for.
    pub(crate) fn new(kind: &'static str, limits: Limits) -> Self {
        Self { kind, limits, ..Self::default() }
    }

    /// A VppToken wants to write: the priority of the permit that it gets, or none, and then it has a ticket.
    pub(crate) fn request(
        &mut self,
        uid: &str,
        object: &NamespacedName,
        priority: Priority,
        now: Instant,
    ) -> Option<Priority> {
        self.expire(now);
        match self.tickets.get(uid).map(|ticket| (ticket.stage, ticket.priority)) {
            Some((Stage::Reserved, reserved)) => {
                self.unreserve(uid, reserved);
                return Some(self.hold(uid, reserved));
            }
            Some((Stage::Held, _)) => return None,
            Some(_) => {}
            None => {
                let place = (now, self.next_number);
                self.next_number += 1;
                let ticket = Ticket { object: object.clone(), priority, place, stage: Stage::Idle };
                self.tickets.insert(uid.to_owned(), ticket);
            }
        }
        if !self.is_paused(now) && self.is_next(uid, priority) {
            let is_free = self.is_free(priority, now);
            if is_free || self.take_over(uid, priority) {
                if is_free {
                    self.count_given(priority, now);
                }
                self.unqueue(uid);
                return Some(self.hold(uid, priority));
            }
        }
        if self.tickets.get(uid).is_none_or(|ticket| (ticket.stage, ticket.priority) != (Stage::Queued, priority)) {
            self.unqueue(uid);
            self.enqueue(uid, priority);
            self.log("queued", uid);
        }
        None
    }

    /// Whether nobody who waits for a permit has waited for longer, or is more urgent. Of people's permits, one in ten is a
    /// schedule's, also when people come just when one is free.
    fn is_next(&self, uid: &str, priority: Priority) -> bool {
        let Some(place) = self.tickets.get(uid).map(|ticket| (ticket.place, uid.to_owned())) else { return false };
        let is_older = |oldest: Option<&(Place, String)>| oldest.is_none_or(|oldest| place <= *oldest);
        match priority {
            Priority::Interactive => is_older(self.interactive.oldest()) && !self.is_turn_of_schedules(),
            Priority::Scheduled => self.interactive.is_empty() && is_older(self.scheduled.oldest()),
        }
    }

    /// Takes over a reservation of one that has waited for less time and has not come yet: it waits on. Otherwise those whose
    /// reconciles are late would keep the permits from those whose reconciles run.
    fn take_over(&mut self, uid: &str, priority: Priority) -> bool {
        let Some(place) = self.tickets.get(uid).map(|ticket| ticket.place) else { return false };
        let younger = self.reservations.keys().filter_map(|other| {
            let ticket = self.tickets.get(other)?;
            (ticket.place > place && ticket.priority == priority).then(|| (ticket.place, other.clone()))
        });
        let Some((_, other)) = younger.max() else { return false };
        self.log("passed on", &other);
        self.unreserve(&other, priority);
        self.enqueue(&other, priority);
        true
    }

    /// The reconcile of a VppToken ended before it could ask: what is reserved for it goes to the next one.
    pub(crate) fn release(&mut self, uid: &str) {
        if let Some(ticket) = self.tickets.get_mut(uid).filter(|ticket| ticket.stage == Stage::Reserved) {
            ticket.stage = Stage::Idle;
            let priority = ticket.priority;
            self.unreserve(uid, priority);
        }
    }

    /// The write of a VppToken with a permit is sent now: its ticket has served.
    pub(crate) fn record_sent(&mut self, uid: &str) {
        self.withdraw(uid);
    }

    /// A permit is given back: because the write was answered, or unused.
    pub(crate) fn record_returned(&mut self, uid: &str, priority: Priority, was_sent: bool, now: Instant) {
        self.held.remove(priority);
        self.log(if was_sent { "served" } else { "returned" }, uid);
        if was_sent {
            self.answered.push_back((now, priority));
        } else if let Some(ticket) = self.tickets.get_mut(uid).filter(|ticket| ticket.stage == Stage::Held) {
            ticket.stage = Stage::Idle;
        }
    }

    /// A VppToken has nothing to write: its ticket is withdrawn. Not during a pause, in which nobody has.
    pub(crate) fn record_unwanted(&mut self, uid: &str, now: Instant) {
        if !self.is_paused(now) {
            self.withdraw(uid);
        }
    }

    /// Removes a ticket, and what is reserved for it.
    pub(crate) fn withdraw(&mut self, uid: &str) {
        self.unqueue(uid);
        if let Some(Ticket { stage: Stage::Reserved, priority, .. }) = self.tickets.remove(uid) {
            self.unreserve(uid, priority);
        }
    }

    /// Reserves the permits that are free. Returns the VppTokens that they are for.
    pub(crate) fn reserve(&mut self, now: Instant) -> Vec<NamespacedName> {
        self.expire(now);
        let mut objects = Vec::new();
        if self.is_paused(now) {
            return objects;
        }
        while let Some(uid) = self.pop_next(now) {
            let Some(ticket) = self.tickets.get_mut(&uid) else { continue };
            ticket.stage = Stage::Reserved;
            objects.push(ticket.object.clone());
            self.reserved.add(ticket.priority);
            self.log("reserved", &uid);
            self.reservations.insert(uid, now + RESERVATION);
        }
        objects
    }

    /// When [`WriteQueue::reserve`] has something to do, if nothing else happens.
    pub(crate) fn next_change(&self, now: Instant) -> Option<Instant> {
        let expires = self.reservations.values().copied();
        let is_waited_for = !self.interactive.is_empty() || !self.scheduled.is_empty();
        let freed = match self.paused_until.filter(|(until, _)| *until > now) {
            Some((until, _)) => Some(until),
            None => self.answered.front().map(|(answered, _)| *answered + WINDOW),
        };
        let paced = self.next_scheduled().filter(|at| *at > now && !self.scheduled.is_empty());
        expires.chain(freed.filter(|_| is_waited_for)).chain(paced).min()
    }

    /// Graph asked to wait: nothing is sent until then. `shown` is the end by the clock that is shown.
    pub(crate) fn pause(&mut self, until: Instant, shown: Timestamp) {
        if self.paused_until.is_some_and(|(already, _)| already >= until) {
            return;
        }
        self.paused_until = Some((until, shown));
        for uid in std::mem::take(&mut self.reservations).into_keys() {
            if let Some(priority) = self.tickets.get(&uid).map(|ticket| ticket.priority) {
                self.reserved.remove(priority);
                self.enqueue(&uid, priority);
            }
        }
    }

    /// Graph throttled a request that was sent at `began`. Returns how long to wait if Graph does not say. A request that was
    /// sent before the last pause was over belongs to the same burst, and changes nothing.
    pub(crate) fn record_throttled(&mut self, began: Instant) -> Duration {
        if self.throttled == 0 || self.is_after_pause(began) {
            self.throttled = self.throttled.saturating_add(1);
        }
        THROTTLED.delay(self.throttled)
    }

    /// Graph carried out a request that was sent at `began`: if that was after the last pause, the next one is short again.
    pub(crate) fn record_success(&mut self, began: Instant) {
        if self.is_after_pause(began) {
            self.throttled = 0;
        }
    }

    /// Until when nothing is sent because Graph asked to wait, by both clocks.
    pub(crate) fn paused_until(&self, now: Instant) -> Option<(Instant, Timestamp)> {
        self.paused_until.filter(|(until, _)| *until > now)
    }

    fn is_after_pause(&self, began: Instant) -> bool {
        self.paused_until.is_none_or(|(until, _)| began >= until)
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until(now).is_some()
    }

    /// Ends the windows and the reservations that are over.
    fn expire(&mut self, now: Instant) {
        while self.answered.front().is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.answered.pop_front();
        }
        let over = self.reservations.iter().filter(|(_, until)| **until <= now).map(|(uid, _)| uid.clone());
        for uid in over.collect::<Vec<_>>() {
            self.log("expired", &uid);
            if let Some(ticket) = self.tickets.get_mut(&uid) {
                ticket.stage = Stage::Idle;
                let priority = ticket.priority;
                self.unreserve(&uid, priority);
            }
        }
    }

    /// What becomes of the permit of a VppToken.
    fn log(&self, permit: &'static str, uid: &str) {
        tracing::debug!(kind = self.kind, permit, uid, "a permit");
    }

    fn unreserve(&mut self, uid: &str, priority: Priority) {
        if self.reservations.remove(uid).is_some() {
            self.reserved.remove(priority);
        }
    }

    fn is_free(&self, priority: Priority, now: Instant) -> bool {
        let is_paced = || self.next_scheduled().is_some_and(|at| at > now);
        match priority {
            Priority::Interactive => self.has_free(self.limits.writes),
            // What schedules leave is people's, also when people have used as much already.
            Priority::Scheduled => self.has_free(self.limits.scheduled) && !is_paced(),
        }
    }

    /// Whether one more is at most this many in the window.
    fn has_free(&self, in_window: usize) -> bool {
        let in_use = self.held.interactive + self.reserved.interactive + self.held.scheduled + self.reserved.scheduled;
        in_use < self.limits.at_a_time && in_use + self.answered.len() < in_window
    }

    fn scheduled_in_window(&self) -> usize {
        let answered = self.answered.iter().filter(|(_, answered)| *answered == Priority::Scheduled).count();
        self.held.scheduled + self.reserved.scheduled + answered
    }

    /// When the next schedule may get a permit, as far as the spread over the window decides that.
    fn next_scheduled(&self) -> Option<Instant> {
        let at_once = (self.limits.scheduled / SHARE_AT_ONCE).max(1);
        let last = self.last_scheduled.filter(|_| self.scheduled_in_window() >= at_once);
        last.map(|last| last + self.schedules_every())
    }

    fn schedules_every(&self) -> Duration {
        WINDOW / u32::try_from(self.limits.scheduled.max(1)).unwrap_or(u32::MAX)
    }

    /// Takes the next ticket for which a permit is free out of the queue.
    fn pop_next(&mut self, now: Instant) -> Option<String> {
        let is_their_turn = self.is_turn_of_schedules();
        let is_schedule_free = !self.scheduled.is_empty() && self.is_free(Priority::Scheduled, now);
        let next = if is_their_turn || self.interactive.is_empty() && is_schedule_free {
            self.count_given(Priority::Scheduled, now);
            if is_their_turn { self.scheduled.pop_oldest() } else { self.scheduled.pop_next() }
        } else if !self.interactive.is_empty() && self.is_free(Priority::Interactive, now) {
            self.count_given(Priority::Interactive, now);
            self.interactive.pop_next()
        } else {
            None
        };
        next.map(|(_, uid)| uid)
    }

    /// Whether the next permit is a schedule's, although people wait or come.
    fn is_turn_of_schedules(&self) -> bool {
        self.interactive_in_a_row + 1 >= SHARE_OF_SCHEDULES
            && !self.scheduled.is_empty()
            && self.has_free(self.limits.writes)
            && self.scheduled_in_window() < self.limits.scheduled
    }

    /// A permit that was free is given, or reserved: what people get counts while schedules wait.
    fn count_given(&mut self, priority: Priority, now: Instant) {
        let every = self.schedules_every();
        let due = self.last_scheduled.map(|last| last + every);
        match priority {
            Priority::Interactive => {
                let is_waited_for = !self.scheduled.is_empty();
                self.interactive_in_a_row = if is_waited_for { self.interactive_in_a_row.saturating_add(1) } else { 0 };
                // Each permit of a person puts off the next schedule by a turn: where no window has ended yet, nothing becomes
                // free, and what is left is theirs. While schedules wait, these are nine permits at most.
                self.last_scheduled = due;
            }
            Priority::Scheduled => {
                self.interactive_in_a_row = 0;
                // What is late by less than its turn does not put off the next ones.
                let was_due = due.filter(|due| *due <= now && now.duration_since(*due) < every);
                self.last_scheduled = Some(was_due.unwrap_or(now));
            }
        }
    }

    fn hold(&mut self, uid: &str, priority: Priority) -> Priority {
        if let Some(ticket) = self.tickets.get_mut(uid) {
            ticket.stage = Stage::Held;
        }
        self.held.add(priority);
        priority
    }

    fn queue_of(&mut self, priority: Priority) -> &mut Turns<(Place, String)> {
        match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Scheduled => &mut self.scheduled,
        }
    }

    fn enqueue(&mut self, uid: &str, priority: Priority) {
        let Some(ticket) = self.tickets.get_mut(uid) else { return };
        (ticket.stage, ticket.priority) = (Stage::Queued, priority);
        let (namespace, place) = (ticket.namespace().to_owned(), ticket.place);
        self.queue_of(priority).insert(&namespace, (place, uid.to_owned()));
    }

    fn unqueue(&mut self, uid: &str) {
        let Some(ticket) = self.tickets.get(uid).filter(|ticket| ticket.stage == Stage::Queued) else { return };
        let (namespace, place, priority) = (ticket.namespace().to_owned(), ticket.place, ticket.priority);
        self.queue_of(priority).remove(&namespace, &(place, uid.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { writes: 10, scheduled: 8, at_a_time: 4 };

    /// A queue, its VppTokens, and what they have been given.
    struct World {
        queue: WriteQueue,
        now: Instant,
        /// Who has a permit: its priority, and whether the write was sent.
        held: BTreeMap<usize, (Priority, bool)>,
        /// Who was triggered and has not asked since.
        triggered: Vec<usize>,
        answered: Vec<Instant>,
    }

    fn uid(n: usize) -> String {
        format!("uid-{n:03}")
    }

    /// Every third one lives in another namespace.
    fn object(n: usize) -> NamespacedName {
        NamespacedName::new(if n.is_multiple_of(3) { "other" } else { "devices" }, n.to_string())
    }

    impl World {
        fn new() -> Self {
            let queue = WriteQueue::new("write", LIMITS);
            Self { queue, now: Instant::now(), held: BTreeMap::new(), triggered: Vec::new(), answered: Vec::new() }
        }

        fn request(&mut self, n: usize, priority: Priority) -> bool {
            self.triggered.retain(|other| *other != n);
            let given = self.queue.request(&uid(n), &object(n), priority, self.now);
            if let Some(given) = given {
                assert!(self.held.insert(n, (given, false)).is_none(), "{n} has two permits");
            }
            self.reserve();
            given.is_some()
        }

        fn send(&mut self, n: usize) {
            if let Some((_, was_sent)) = self.held.get_mut(&n) {
                *was_sent = true;
                self.queue.record_sent(&uid(n));
            }
        }

        fn give_back(&mut self, n: usize) {
            if let Some((priority, was_sent)) = self.held.remove(&n) {
                self.queue.record_returned(&uid(n), priority, was_sent, self.now);
                self.answered.extend(was_sent.then_some(self.now));
            }
            self.reserve();
        }

        fn write(&mut self, n: usize, priority: Priority) -> bool {
            let is_given = self.request(n, priority);
            if is_given {
                self.send(n);
                self.give_back(n);
            }
            is_given
        }

        fn reserve(&mut self) {
            let triggered = self.queue.reserve(self.now);
            self.triggered.extend(triggered.into_iter().map(|object| object.name.parse::<usize>().unwrap()));
            let in_window = self.answered.iter().filter(|at| self.now.duration_since(**at) < WINDOW).count();
            assert!(self.held.len() + in_window <= LIMITS.writes, "{} and {in_window}", self.held.len());
            assert!(self.held.len() + self.queue.reservations.len() <= LIMITS.at_a_time);
        }

        fn advance(&mut self, time: Duration) {
            self.now += time;
            self.reserve();
        }

        /// Goes on to the next change, and lets everybody write who is triggered. Returns who did.
        fn serve(&mut self, priority: Priority) -> Vec<usize> {
            if self.triggered.is_empty() {
                let next = self.queue.next_change(self.now).expect("somebody waits, and nothing will happen");
                self.advance(next.duration_since(self.now));
            }
            let triggered = std::mem::take(&mut self.triggered);
            triggered.into_iter().filter(|n| self.write(*n, priority)).collect()
        }
    }

    fn full() -> World {
        let mut world = World::new();
        for n in 100..100 + LIMITS.writes {
            assert!(world.write(n, Priority::Interactive));
        }
        world
    }

    #[test]
    fn who_finds_a_free_permit_does_not_wait() {
        let mut world = World::new();
        for n in 0..LIMITS.writes {
            assert!(world.write(n, Priority::Interactive), "{n}");
        }
        assert!(!world.write(99, Priority::Interactive));
    }

    #[test]
    fn a_write_counts_until_a_window_after_its_answer() {
        let limits = Limits { at_a_time: LIMITS.writes, ..LIMITS };
        let mut world = World { queue: WriteQueue::new("write", limits), ..World::new() };
        for n in 0..LIMITS.writes {
            let given = world.queue.request(&uid(n), &object(n), Priority::Interactive, world.now);
            assert_eq!(given, Some(Priority::Interactive));
            world.queue.record_sent(&uid(n));
        }
        let slow = Duration::from_secs(7);
        world.now += slow;
        for n in 0..LIMITS.writes {
            world.queue.record_returned(&uid(n), Priority::Interactive, true, world.now);
        }
        assert!(!world.request(50, Priority::Interactive));
        assert_eq!(world.queue.next_change(world.now), Some(world.now + WINDOW));
        world.advance(WINDOW);
        assert!(world.request(50, Priority::Interactive));
    }

    #[test]
    fn a_permit_that_becomes_free_is_reserved_for_the_next_in_turn() {
        let mut world = full();
        for n in [1, 2, 3] {
            assert!(!world.request(n, Priority::Interactive));
        }
        world.advance(WINDOW);
        assert_eq!(world.triggered, [1, 3, 2], "3 is of the other namespace");
        assert!(world.request(3, Priority::Interactive));
    }

    #[test]
    fn a_person_comes_before_a_schedule_and_one_permit_in_ten_is_for_schedules() {
        let mut world = full();
        for n in 0..30 {
            let priority = if n < 10 { Priority::Scheduled } else { Priority::Interactive };
            assert!(!world.request(n, priority));
        }
        let mut order = Vec::new();
        while order.len() < 30 {
            let priority = if order.len() < 20 { Priority::Interactive } else { Priority::Scheduled };
            order.extend(world.serve(priority));
        }
        let of_schedules: Vec<usize> = (0..30).filter(|at| order[*at] < 10).collect();
        assert_eq!(of_schedules[..3], [9, 19, 22], "{order:?}");
    }

    #[test]
    fn people_who_come_just_when_a_permit_is_free_leave_one_in_ten_to_schedules() {
        let mut world = World::new();
        let step = WINDOW / 10;
        for n in 200..210 {
            world.now += step;
            assert!(world.write(n, Priority::Interactive));
        }
        for n in 0..5 {
            assert!(!world.request(n, Priority::Scheduled));
        }
        let mut order = Vec::new();
        for person in 100..160 {
            // One permit is free by now, and somebody asks before it is reserved.
            world.now += step;
            order.extend(world.write(person, Priority::Interactive).then_some(person));
            for n in std::mem::take(&mut world.triggered) {
                let priority = if n < 100 { Priority::Scheduled } else { Priority::Interactive };
                order.extend(world.write(n, priority).then_some(n));
            }
        }
        let of_schedules: Vec<usize> = (0..order.len()).filter(|at| order[*at] < 100).collect();
        assert_eq!(of_schedules, [9, 19, 29, 39, 49], "{order:?}");
    }

    /// Lets everybody write who may, until a time; those from 100 on are people. Returns who has written, and when.
    fn write_until(world: &mut World, end: Instant) -> Vec<(usize, Instant)> {
        let mut written = Vec::new();
        loop {
            for n in std::mem::take(&mut world.triggered) {
                let priority = if n < 100 { Priority::Scheduled } else { Priority::Interactive };
                if world.write(n, priority) {
                    written.push((n, world.now));
                }
            }
            if world.triggered.is_empty() {
                match world.queue.next_change(world.now).filter(|next| *next <= end) {
                    Some(next) => world.advance(next.duration_since(world.now)),
                    None => break,
                }
            }
        }
        world.now = end;
        written
    }

    #[test]
    fn scheduled_syncs_leave_permits_for_people() {
        let mut world = World::new();
        let at_once = (0..20).filter(|n| world.write(*n, Priority::Scheduled)).count();
        assert_eq!(at_once, LIMITS.scheduled / SHARE_AT_ONCE);
        let end = world.now + WINDOW - Duration::from_millis(1);
        assert_eq!(at_once + write_until(&mut world, end).len(), LIMITS.scheduled);
        assert!(world.write(150, Priority::Interactive) && world.write(151, Priority::Interactive));
        assert!(!world.write(152, Priority::Interactive));
    }

    #[test]
    fn while_many_syncs_are_due_a_person_waits_for_the_next_permit_and_not_for_the_end_of_a_window() {
        let (mut world, began) = (World::new(), Instant::now());
        world.now = began;
        let mut sent = (0..90).filter(|n| world.write(*n, Priority::Scheduled)).count();
        sent += write_until(&mut world, began + WINDOW * 2).len();
        let every = WINDOW / u32::try_from(LIMITS.scheduled).unwrap();
        for person in 100..110 {
            let came = world.now;
            if !world.write(person, Priority::Interactive) {
                let written = write_until(&mut world, came + every);
                let it = written.iter().find(|(who, _)| *who == person);
                assert!(it.is_some(), "{person} has waited for {every:?}: {written:?}");
                sent += written.len() - 1;
            }
        }
        // In the long run as many are sent as may be: people's came out of what they leave.
        sent += write_until(&mut world, began + WINDOW * 6).len();
        assert!((LIMITS.scheduled * 5..=LIMITS.scheduled * 6 + LIMITS.writes).contains(&sent), "{sent}");
    }

    #[test]
    fn schedules_leave_the_last_permits_although_people_have_used_others() {
        let (mut world, began) = (World::new(), Instant::now());
        world.now = began;
        assert!((100..105).all(|person| world.write(person, Priority::Interactive)));
        let mut sent = (0..20).filter(|n| world.write(*n, Priority::Scheduled)).count();
        sent += write_until(&mut world, began + WINDOW - Duration::from_millis(1)).len();
        assert_eq!(sent, LIMITS.scheduled - 5);
        assert!(world.write(150, Priority::Interactive) && world.write(151, Priority::Interactive));
    }

    #[test]
    fn however_much_people_have_written_schedules_are_not_put_off_for_long() {
        let mut world = World::new();
        assert!(world.write(0, Priority::Scheduled));
        let step = WINDOW / u32::try_from(LIMITS.writes).unwrap() + Duration::from_millis(50);
        for n in 0..200 {
            world.now += step;
            assert!(world.write(100 + n, Priority::Interactive));
        }
        let mut sent = (1..30).filter(|n| world.write(*n, Priority::Scheduled)).count();
        let end = world.now + WINDOW * 3;
        sent += write_until(&mut world, end).len();
        assert!(sent >= LIMITS.scheduled, "{sent}");
    }

    #[test]
    fn before_the_first_window_has_ended_people_find_what_schedules_have_not_taken() {
        let every = WINDOW / u32::try_from(LIMITS.scheduled).unwrap();
        for writes_of_person in 1..=2 {
            let (mut world, began) = (World::new(), Instant::now());
            world.now = began;
            let mut sent = (0..90).filter(|n| world.write(*n, Priority::Scheduled)).count();
            for turn in 1..4 {
                sent += write_until(&mut world, began + every * 2 * turn).len();
                for n in 0..writes_of_person {
                    let person = 100 + (turn * 10 + n) as usize;
                    assert!(world.write(person, Priority::Interactive), "{person} has to wait after {sent}");
                }
            }
            sent += write_until(&mut world, began + WINDOW * 3).len();
            assert!(sent >= LIMITS.scheduled * 2, "schedules go on: {sent}");
        }
    }

    #[test]
    fn a_reservation_that_is_not_used_goes_to_the_next_one_and_the_ticket_keeps_its_place() {
        let mut world = full();
        for n in [1, 2, 4, 5, 7] {
            world.request(n, Priority::Interactive);
        }
        world.advance(WINDOW);
        assert_eq!(world.triggered, [1, 2, 4, 5]);
        world.triggered.clear();
        world.advance(RESERVATION);
        assert_eq!(world.triggered, [7]);
        assert!(world.request(5, Priority::Interactive), "there are free ones again");
        world.give_back(5);
        assert!(world.request(1, Priority::Interactive));
    }

    #[test]
    fn who_does_not_want_to_write_any_more_is_passed_over() {
        for withdraw in [
            |world: &mut World, n: usize| world.queue.record_unwanted(&uid(n), world.now),
            |world: &mut World, n: usize| world.queue.withdraw(&uid(n)),
        ] {
            let mut world = full();
            for n in [1, 2, 4, 5, 7] {
                world.request(n, Priority::Interactive);
            }
            withdraw(&mut world, 1);
            world.advance(WINDOW);
            assert_eq!(world.triggered, [2, 4, 5, 7]);
            // One that is reserved goes to the next at once, too.
            assert!(!world.request(8, Priority::Interactive));
            withdraw(&mut world, 2);
            world.reserve();
            assert_eq!(world.triggered.last(), Some(&8));
        }
    }

    #[test]
    fn nobody_passes_over_those_of_the_same_priority_that_wait() {
        let mut world = World::new();
        for n in 0..LIMITS.scheduled + 2 {
            world.write(n, Priority::Scheduled);
        }
        world.now += WINDOW;
        assert!(!world.request(50, Priority::Scheduled), "two have waited before");
        assert!(world.request(51, Priority::Interactive), "a person does not wait for schedules");
    }

    #[test]
    fn who_comes_late_takes_a_permit_from_one_who_has_not_come_either() {
        let mut world = full();
        for n in [1, 2, 4, 5, 7, 8, 10, 11] {
            world.request(n, Priority::Interactive);
        }
        world.advance(WINDOW);
        assert_eq!(world.triggered, [1, 2, 4, 5]);
        world.triggered.clear();
        world.advance(RESERVATION);
        assert_eq!(world.triggered, [7, 8, 10, 11], "the others have not come");
        assert!(world.request(1, Priority::Interactive), "it has waited for longest");
        assert!(!world.request(13, Priority::Interactive));
        assert!(world.request(7, Priority::Interactive) && !world.request(11, Priority::Interactive));
        world.send(1);
        world.give_back(1);
        assert!(world.triggered.contains(&11));
    }

    #[test]
    fn to_ask_again_costs_no_turn() {
        let mut world = full();
        for n in [1, 2, 4, 3] {
            world.request(n, Priority::Interactive);
        }
        world.queue.limits.at_a_time = 1;
        assert!(!world.request(3, Priority::Interactive), "alone in its namespace");
        world.request(6, Priority::Interactive);
        world.advance(WINDOW);
        let mut order = Vec::new();
        while order.len() < 3 {
            order.extend(world.serve(Priority::Interactive));
        }
        assert_eq!(order, [1, 3, 2]);
    }

    #[test]
    fn a_reconcile_that_failed_gives_its_reservation_back() {
        let mut world = full();
        for n in [1, 2, 4, 5, 7] {
            world.request(n, Priority::Interactive);
        }
        world.advance(WINDOW);
        world.queue.release(&uid(1));
        world.reserve();
        assert_eq!(world.triggered, [1, 2, 4, 5, 7]);
        assert!(world.request(1, Priority::Interactive), "its ticket has kept its place, before that of 7");
        assert!(!world.request(7, Priority::Interactive));
    }

    #[test]
    fn a_pause_takes_reservations_back() {
        let mut world = full();
        for n in [1, 2] {
            world.request(n, Priority::Interactive);
        }
        world.advance(WINDOW);
        assert_eq!(world.triggered, [1, 2]);
        let until = world.now + Duration::from_secs(30);
        world.queue.pause(until, Timestamp::UNIX_EPOCH);
        assert!(!world.request(1, Priority::Interactive));
        world.queue.record_unwanted(&uid(2), world.now);
        world.triggered.clear();
        assert_eq!(world.queue.next_change(world.now), Some(until));
        world.advance(Duration::from_secs(30));
        assert_eq!(world.triggered, [1, 2]);
    }

    #[test]
    fn a_ticket_keeps_its_place_when_its_permit_was_not_used() {
        let mut world = full();
        for n in [1, 2, 4, 5, 7] {
            world.request(n, Priority::Interactive);
        }
        world.advance(WINDOW);
        assert!(world.request(1, Priority::Interactive));
        // A conflict, for example.
        world.give_back(1);
        assert_eq!(world.triggered, [2, 4, 5, 7]);
        assert!(world.request(1, Priority::Interactive), "in place of 7, which has waited for less time");
        assert!(!world.request(8, Priority::Interactive));
        assert!(world.write(2, Priority::Interactive));
        assert_eq!(world.triggered, [4, 5, 7, 7], "7 again, before 8");
    }

    #[derive(Clone, Debug)]
    enum Op {
        Request(usize, bool),
        Send(usize),
        GiveBack(usize),
        Unwanted(usize),
        Deleted(usize),
        Advance(u64),
        Pause(u64),
        Throttled,
    }

    fn op() -> impl Strategy<Value = Op> {
        let who = || 0..30usize;
        prop_oneof![
            6 => (who(), any::<bool>()).prop_map(|(n, person)| Op::Request(n, person)),
            4 => who().prop_map(Op::Send),
            4 => who().prop_map(Op::GiveBack),
            1 => who().prop_map(Op::Unwanted),
            1 => who().prop_map(Op::Deleted),
            4 => (0..8000u64).prop_map(Op::Advance),
            1 => (0..40u64).prop_map(Op::Pause),
            1 => Just(Op::Throttled),
        ]
    }

    fn priority(is_person: bool) -> Priority {
        if is_person { Priority::Interactive } else { Priority::Scheduled }
    }

    fn run(ops: Vec<Op>) -> World {
        let mut world = World::new();
        for op in ops {
            match op {
                Op::Request(n, is_person) if !world.held.contains_key(&n) => {
                    world.request(n, priority(is_person));
                }
                Op::Request(..) => {}
                Op::Send(n) => world.send(n),
                Op::GiveBack(n) => world.give_back(n),
                Op::Unwanted(n) => world.queue.record_unwanted(&uid(n), world.now),
                Op::Deleted(n) => world.queue.withdraw(&uid(n)),
                Op::Advance(ms) => world.advance(Duration::from_millis(ms)),
                Op::Pause(seconds) => {
                    world.queue.pause(world.now + Duration::from_secs(seconds), Timestamp::UNIX_EPOCH);
                }
                Op::Throttled => {
                    let wait = world.queue.record_throttled(world.now);
                    world.queue.pause(world.now + wait, Timestamp::UNIX_EPOCH);
                }
            }
        }
        world
    }

    proptest! {
        /// The limits themselves are asserted after every step, by [`World::reserve`].
        #[test]
        fn no_permit_is_lost_or_doubled(ops in proptest::collection::vec(op(), 0..300)) {
            let mut world = run(ops);
            for n in 0..30 {
                world.give_back(n);
                world.queue.withdraw(&uid(n));
            }
            world.advance(Duration::from_secs(300));
            let given = (30..50).filter(|n| world.request(*n, Priority::Interactive)).count();
            prop_assert_eq!(given, LIMITS.at_a_time);
            prop_assert_eq!(world.queue.tickets.len(), 20);
        }

        #[test]
        fn nobody_starves(ops in proptest::collection::vec(op(), 0..300), persons in 0..30usize) {
            let mut world = run(ops);
            for n in 0..30 {
                world.give_back(n);
            }
            world.triggered.clear();
            let mut waiting: std::collections::BTreeSet<usize> = (0..30).collect();
            for n in 0..30 {
                if world.write(n, priority(n < persons)) {
                    waiting.remove(&n);
                }
            }
            let began = world.now;
            while !waiting.is_empty() {
                for n in world.serve(Priority::Interactive) {
                    waiting.remove(&n);
                }
                // Three windows' worth, and a pause of 180 s at most.
                prop_assert!(world.now.duration_since(began) < Duration::from_secs(300), "{:?}", waiting);
            }
        }
    }
}
