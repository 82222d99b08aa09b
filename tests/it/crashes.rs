//! The operator is killed with SIGKILL at every point of a life of create, sync and renewal, and started again: one
//! token in Graph, each file uploaded once, each sync that is due carried out once.
//!
//! Each test is one life with one crash. A request that was in flight has its effect while no operator runs; the
//! operator that starts again knows only what is in the status and in Graph.

use std::collections::BTreeSet;

use graph_emulator::{Action, Fault, FaultHandle, Operation, TokenFile, When};
use jiff::Timestamp;
use serde_json::json;
use vpptoken_operator::api::VppTokenStatus;

use crate::support::{History, LIMIT, Setup, World, is_ready};

/// In which part of its life the operator is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// From the new object to its first sync.
    Creating,
    /// From the request of a person to the sync that it asks for.
    Requesting,
    /// From the new file to the sync that follows its upload.
    Renewing,
}

/// The moment at which it is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// A request has arrived and had no effect yet. It has its effect after the crash. So many requests of the kind
    /// pass first.
    BeforeEffect(Operation, u32),
    /// A request had its effect and is not answered. So many requests of the kind pass first.
    AfterEffect(Operation, u32),
    /// A connection ended without an answer; the request had no effect.
    CutBeforeEffect(Operation),
    /// A connection ended without an answer; the request had its effect.
    CutAfterEffect(Operation),
    /// A request was answered a moment ago.
    Answered(Operation),
    /// A status was written a moment ago.
    Written(fn(&VppTokenStatus) -> bool),
    /// There is nothing left to do.
    Done,
}

/// A moment that is waited for.
enum Armed {
    Fault(FaultHandle),
    Answered(Operation, usize),
    Written(fn(&VppTokenStatus) -> bool),
}

/// One life: a token is created and synced, a sync may be requested, the file is renewed and synced.
struct Life {
    world: World,
    history: History,
    file: TokenFile,
    renewed: TokenFile,
    requests: usize,
    repeated_syncs: usize,
}

impl Life {
    async fn begin() -> Self {
        Self::begin_with(Setup::default()).await
    }

    async fn begin_with(setup: Setup) -> Self {
        let world = World::with(setup).await;
        let history = History::begin(world.tokens()).await;
        let file = world.token("Contoso", "2097-01-22T17:32:07Z");
        let renewed = world.token("Contoso", "2098-01-21T08:00:00Z");
        Self { world, history, file, renewed, requests: 0, repeated_syncs: 0 }
    }

    fn arm(&self, moment: Moment) -> Option<Armed> {
        let fault = |action, operation, skip| {
            let fault = Fault::new(action).on(operation).skip(skip).once();
            Armed::Fault(self.world.emulator.inject(fault))
        };
        Some(match moment {
            Moment::BeforeEffect(operation, skip) => fault(Action::Hold { when: When::Before }, operation, skip),
            Moment::AfterEffect(operation, skip) => fault(Action::Hold { when: When::After }, operation, skip),
            Moment::CutBeforeEffect(operation) => fault(Action::Cut { when: When::Before }, operation, 0),
            Moment::CutAfterEffect(operation) => fault(Action::Cut { when: When::After }, operation, 0),
            Moment::Answered(operation) => Armed::Answered(operation, self.world.emulator.count(operation)),
            Moment::Written(holds) => Armed::Written(holds),
            Moment::Done => return None,
        })
    }

    /// Waits for the moment, kills the operator, lets requests in flight have their effect, and starts it again.
    async fn die_at(&self, armed: &Armed) {
        self.killed_at(armed).await;
        if let Armed::Fault(fault) = armed {
            fault.remove();
        }
        self.world.operator.start().await;
    }

    async fn killed_at(&self, armed: &Armed) {
        let world = &self.world;
        let came = match armed {
            Armed::Fault(fault) => fault.wait_hit(LIMIT).await,
            Armed::Answered(operation, before) => {
                let answered = |seen: &graph_emulator::View<'_>| {
                    let of_kind = seen.requests().filter(|request| request.operation == *operation);
                    of_kind.filter(|request| request.ended.is_some()).count() > *before
                };
                world.emulator.wait_for(answered, LIMIT).await
            }
            Armed::Written(holds) => self.history.wait("berlin", holds).await,
        };
        world.operator.kill();
        assert!(came, "the moment never came\n{}", world.operator.log_end());
    }

    async fn create(&self) {
        self.world.create("berlin", &self.file, json!({})).await;
    }

    async fn wait_created(&self) {
        self.world.wait_synced("berlin").await;
    }

    async fn request(&mut self) {
        self.requests += 1;
        self.world.request_sync("berlin", &self.requests.to_string()).await;
    }

    async fn wait_requested(&self) {
        let wanted = Some(self.requests.to_string());
        self.world
            .wait_status("berlin", "synced as requested", |status| {
                is_ready(status)
                    && status.last_handled_sync_request == wanted
                    && status.last_sync_status.as_deref() == Some("completed")
                    && status.last_sync_date_time >= status.last_sync_trigger_time
            })
            .await;
    }

    async fn renew(&self) {
        self.world.write_secret("berlin", "token", &self.renewed.text()).await;
    }

    async fn wait_renewed(&self) {
        let digest = graph_emulator::sha256(&self.renewed.text());
        self.world
            .wait_status("berlin", "renewed and synced", |status| {
                let uploaded = status.uploaded.as_ref().filter(|uploaded| uploaded.sha256 == digest);
                is_ready(status)
                    && status.last_sync_status.as_deref() == Some("completed")
                    && uploaded.is_some_and(|uploaded| status.last_sync_date_time >= Some(uploaded.time))
            })
            .await;
    }

    /// How many of the processes that were killed took the answer to a sync with them: Graph carried out one sync more
    /// than the status ever showed. Each process but the last was killed, and the next one started at one of `starts`.
    async fn hidden_syncs(&self, starts: &[Timestamp]) -> usize {
        let syncs = self.world.requests(SyncLicenses).into_iter().filter(|request| request.carried_out.is_some());
        let syncs: Vec<Timestamp> = syncs.map(|request| request.began).collect();
        let statuses = self.history.of("berlin").await.into_iter();
        let shown: BTreeSet<Timestamp> = statuses.filter_map(|status| status.last_sync_trigger_time).collect();
        let begins = std::iter::once(Timestamp::MIN).chain(starts.iter().copied());
        let lives = begins.zip(starts).filter(|(began, ended)| {
            let in_it = |at: &&Timestamp| (*began..**ended).contains(*at);
            syncs.iter().filter(in_it).count() > shown.iter().filter(in_it).count()
        });
        lives.count()
    }

    /// Time for whatever might still be due; then the check of the whole life.
    async fn end(self) {
        self.world.wait_lists(1).await;
        // After a restart, the status of an object may not be confirmed yet.
        self.wait_renewed().await;
        let world = self.world;

        let entities = world.entities();
        assert_eq!(entities.len(), 1, "{entities:#?}\n{}", world.operator.log_end());
        let entity = &entities[0];
        let carried_out = |operation| {
            let requests = world.requests(operation);
            requests.iter().filter(|request| request.carried_out.is_some()).count()
        };
        let account = format!("{:#?}\n{}", world.emulator.requests(), world.operator.log_end());
        assert_eq!(carried_out(Operation::Create), 1, "creates: {account}");
        assert_eq!(carried_out(Operation::Update), 1, "PATCHes: {account}");
        assert_eq!(carried_out(Operation::Delete), 0, "deletes: {account}");
        assert_eq!(entity.uploads, 2, "{account}");
        let due = 2 + self.requests;
        let syncs = carried_out(Operation::SyncLicenses);
        assert!((due..=due + self.repeated_syncs).contains(&syncs), "{syncs} syncs, {due} due: {account}");

        let status = world.status("berlin").await;
        assert!(is_ready(&status), "{status:#?}");
        assert_eq!(status.token_id.as_ref(), Some(&entity.id));
        assert_eq!(status.pending_create, None);
        assert_eq!(entity.token_sha256, Some(graph_emulator::sha256(&self.renewed.text())), "Graph has another file");
        assert_eq!(entity.token_sha256, status.uploaded.map(|uploaded| uploaded.sha256));
        assert_eq!(status.expiration_date_time, Some(self.renewed.expires()));
        assert_eq!(status.last_handled_sync_request, (self.requests > 0).then(|| self.requests.to_string()));
        drop(self.history);
        world.finish().await;
    }
}

/// A whole life, with one crash in it.
async fn live(part: Part, moment: Moment) {
    let mut life = Life::begin().await;
    // A sync whose answer is lost in a crash is the one thing that may be done again: one that Graph shows may be
    // somebody else's.
    let hides = matches!(moment, BeforeEffect(SyncLicenses, _) | AfterEffect(SyncLicenses, _) | Answered(SyncLicenses));
    life.repeated_syncs = usize::from(hides);
    let armed = |life: &Life, now: Part| if part == now { life.arm(moment) } else { None };

    let creating = armed(&life, Part::Creating);
    life.create().await;
    if let Some(armed) = &creating {
        life.die_at(armed).await;
    }
    life.wait_created().await;

    if part == Part::Requesting {
        let requesting = armed(&life, Part::Requesting);
        life.request().await;
        if let Some(armed) = &requesting {
            life.die_at(armed).await;
        }
        life.wait_requested().await;
    }

    let renewing = armed(&life, Part::Renewing);
    life.renew().await;
    if let Some(armed) = &renewing {
        life.die_at(armed).await;
    }
    life.wait_renewed().await;

    if matches!(moment, Moment::Done) {
        life.world.operator.restart().await;
    }
    life.end().await;
}

/// One test for each point of the crash.
macro_rules! killed {
    ($($name:ident: $part:ident, $moment:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            live(Part::$part, $moment).await;
        })+
    };
}

use Moment::{AfterEffect, Answered, BeforeEffect, CutAfterEffect, CutBeforeEffect, Done, Written};
use Operation::{Create, List, SyncLicenses, Token, Update};

killed! {
    killed_while_it_asks_for_its_first_access_token: Creating, BeforeEffect(Token, 0);
    killed_while_the_first_list_is_in_flight: Creating, AfterEffect(List, 0);
    killed_when_the_intent_of_a_create_is_recorded: Creating, Written(|status| status.pending_create.is_some());
    killed_while_the_list_after_the_intent_is_in_flight: Creating, AfterEffect(List, 1);
    killed_between_a_create_and_its_effect: Creating, BeforeEffect(Create, 0);
    killed_between_a_creates_effect_and_its_answer: Creating, AfterEffect(Create, 0);
    killed_when_a_create_was_cut_off_before_its_effect: Creating, CutBeforeEffect(Create);
    killed_when_a_create_was_cut_off_after_its_effect: Creating, CutAfterEffect(Create);
    killed_when_a_create_was_answered: Creating, Answered(Create);
    killed_when_the_new_id_is_in_the_status: Creating, Written(|status| status.token_id.is_some());
    killed_between_the_first_sync_and_its_effect: Creating, BeforeEffect(SyncLicenses, 0);
    killed_between_the_first_syncs_effect_and_its_answer: Creating, AfterEffect(SyncLicenses, 0);
    killed_when_the_first_sync_was_answered: Creating, Answered(SyncLicenses);
    killed_while_the_first_sync_runs: Creating, Written(|status| status.last_sync_status.as_deref() == Some("inProgress"));
    killed_when_the_first_sync_is_over: Creating, Written(|status| status.last_sync_status.as_deref() == Some("completed"));
    killed_between_a_requested_sync_and_its_effect: Requesting, BeforeEffect(SyncLicenses, 0);
    killed_between_a_requested_syncs_effect_and_its_answer: Requesting, AfterEffect(SyncLicenses, 0);
    killed_when_a_requested_sync_is_acknowledged: Requesting, Written(|status| status.last_handled_sync_request.is_some());
    killed_between_a_renewal_and_its_effect: Renewing, BeforeEffect(Update, 0);
    killed_between_a_renewals_effect_and_its_answer: Renewing, AfterEffect(Update, 0);
    killed_when_a_renewal_was_cut_off_before_its_effect: Renewing, CutBeforeEffect(Update);
    killed_when_a_renewal_was_cut_off_after_its_effect: Renewing, CutAfterEffect(Update);
    killed_when_a_renewal_was_answered: Renewing, Answered(Update);
    killed_between_the_renewals_sync_and_its_effect: Renewing, BeforeEffect(SyncLicenses, 0);
    killed_between_the_renewals_syncs_effect_and_its_answer: Renewing, AfterEffect(SyncLicenses, 0);
    killed_when_everything_is_done: Renewing, Done;
}

#[tokio::test(flavor = "multi_thread")]
async fn created_while_it_was_dead_and_renewed_while_it_was_dead() {
    let life = Life::begin().await;
    life.world.operator.kill();
    life.create().await;
    life.world.operator.start().await;
    life.wait_created().await;
    life.world.operator.kill();
    life.renew().await;
    life.world.operator.start().await;
    life.wait_renewed().await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_while_it_looks_for_what_the_first_death_hid() {
    let life = Life::begin().await;
    let create = life.arm(AfterEffect(Create, 0)).unwrap();
    life.create().await;
    life.killed_at(&create).await;
    // The answer is lost, and the next process crashes over its first list.
    let list = life.arm(AfterEffect(List, 0)).unwrap();
    life.world.operator.start().await;
    life.die_at(&list).await;
    life.wait_created().await;
    life.renew().await;
    life.wait_renewed().await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_takes_effect_when_the_next_process_has_already_searched_is_found_later() {
    let flags = ["--settling-time", "2s", "--unknown-outcome-time", "30s", "--vanished-time", "3s"];
    let life = Life::begin_with(Setup { flags: flags.map(str::to_owned).to_vec(), ..Setup::default() }).await;
    let create = life.arm(BeforeEffect(Create, 0)).unwrap();
    life.create().await;
    life.killed_at(&create).await;
    life.world.operator.start().await;
    life.world.wait_reason("berlin", "CreateOutcomeUnknown").await;
    assert!(life.world.entities().is_empty());
    if let Armed::Fault(fault) = &create {
        fault.remove();
    }
    life.wait_created().await;
    life.renew().await;
    life.wait_renewed().await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_eight_times_as_soon_as_it_is_ready() {
    let mut life = Life::begin().await;
    let mut starts = Vec::new();
    life.create().await;
    for _ in 0..8 {
        life.world.operator.kill();
        starts.push(Timestamp::now());
        life.world.operator.start().await;
    }
    life.wait_created().await;
    life.renew().await;
    for _ in 0..8 {
        life.world.operator.kill();
        starts.push(Timestamp::now());
        life.world.operator.start().await;
    }
    life.wait_renewed().await;
    // Each of the crashes may hide the answer to a sync, which is then done again.
    life.repeated_syncs = life.hidden_syncs(&starts).await;
    life.end().await;
}
