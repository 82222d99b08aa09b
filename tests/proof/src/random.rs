//! Random histories over larger worlds: several VppTokens, people who change their minds, faults at any call. When people and
//! faults are done, everything has to arrive.

use std::time::Duration;

use futures::future::BoxFuture;
use graph_emulator::{Permission, TokenFile, sha256};
use serde_json::{Value, json};

use crate::fault::{CallKind, Fault};
use crate::life::Life;
use crate::world::{CLIENT, CLIENT_SECRET, DEVICES, SYSTEM, TENANT, World, file, file_of};

/// The life whose script a seed makes.
pub const RANDOM: Life = Life { name: "random", script: |world| -> BoxFuture<'_, _> { Box::pin(live(world)) } };

const NAMES: [&str; 4] = ["t0", "t1", "t2", "t3"];
/// What people do before they leave things alone.
const MAX_ACTIONS: u64 = 14;
/// Everything has arrived within this time after the last of it.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// What may be left in need of a person, after all that people did.
const ADMITTED: [&str; 9] = [
    "ClaimedByAnother",
    "SimilarTokenExists",
    "AmbiguousMatch",
    "AlreadyBound",
    "TokenFileOlder",
    "ReplacedInIntune",
    "OrganizationMismatch",
    "TokenNotFound",
    "ManyVanished",
];

/// A small generator of well mixed numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap_or_default()]
    }

    /// Whether a fault strikes a call, and which: one call in `one_in`.
    pub fn fault(&mut self, kind: CallKind, one_in: u64) -> Option<Fault> {
        if self.roll(one_in) > 0 {
            return None;
        }
        let fault = self.pick(&Fault::ALL);
        fault.strikes(kind).then_some(fault)
    }
}

async fn live(world: &World) -> Result<(), String> {
    let mut dice = Dice::new(world.seed ^ 0x5EED);
    let count = usize::try_from(1 + dice.roll(3)).unwrap_or(1);
    let mut people = People { world, dice, days: [200; 4], names: NAMES[..count].to_vec() };
    for name in people.names.clone() {
        people.create(name);
    }
    world.start_process();
    for _ in 0..people.dice.roll(MAX_ACTIONS) {
        let pause = people.dice.pick(&[0, 1, 3, 20, 70, 400, 1200]);
        tokio::time::sleep(Duration::from_secs(pause) + Duration::from_millis(people.dice.roll(500))).await;
        people.act();
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    people.mend();
    world.faults_are_over();
    let names = people.names.clone();
    for name in names {
        let file = file(name, people.days_of(name));
        let what = format!("{name} is ready with the file of its Secret, or needs a person");
        world.until(&what, LIMIT, |world| has_arrived(world, name, &file)).await?;
    }
    Ok(())
}

fn has_arrived(world: &World, name: &str, file: &TokenFile) -> bool {
    let object = world.token(name);
    if object.is_null() {
        return true;
    }
    let is_current = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let stalled = world.condition(name, "Stalled");
    let needs_a_person = stalled.0 == "True" && ADMITTED.contains(&stalled.1.as_str());
    let (ready, reason) = world.condition(name, "Ready");
    let entity = world.graph.entity(TENANT, object["status"]["tokenId"].as_str().unwrap_or_default());
    let has_file = entity.is_some_and(|entity| {
        let is_newer = entity.expiration_date_time.is_some_and(|expires| expires > file.expires());
        entity.token_sha256 == Some(sha256(&file.text())) || reason == "NewerTokenInIntune" && is_newer
    });
    is_current && (ready == "True" && has_file || needs_a_person)
}

struct People<'a> {
    world: &'a World,
    dice: Dice,
    days: [i64; 4],
    names: Vec<&'static str>,
}

impl People<'_> {
    fn spec(&mut self) -> Value {
        let mut spec = json!({});
        if self.dice.roll(3) == 0 {
            spec["deletionPolicy"] = "Delete".into();
        }
        match self.dice.roll(4) {
            0 => spec["sync"] = json!({ "interval": "1h" }),
            1 => spec["sync"] = json!({ "schedule": "20,50 * * * *" }),
            _ => {}
        }
        if self.dice.roll(3) == 0 {
            spec["automaticallyUpdateApps"] = (self.dice.roll(2) == 0).into();
        }
        spec
    }

    fn create(&mut self, name: &'static str) {
        let days = self.days_of(name);
        self.world.put_file(name, &file(name, days));
        let spec = self.spec();
        self.world.put_token(name, spec);
    }

    fn days_of(&self, name: &str) -> i64 {
        NAMES.iter().position(|known| *known == name).map_or(200, |n| self.days[n])
    }

    fn act(&mut self) {
        let world = self.world;
        let name = self.dice.pick(&self.names.clone());
        let n = NAMES.iter().position(|known| *known == name).unwrap_or_default();
        let id = world.token(name)["status"]["tokenId"].as_str().map(str::to_owned);
        match self.dice.roll(22) {
            0..=2 => {
                self.days[n] += 30;
                world.put_file(name, &file(name, self.days[n]));
            }
            3 => world.put_file(name, &file(name, self.days[n] - 45)),
            4 => world.put_secret(DEVICES, name, "token", "this is no token file"),
            5 => {
                let foreign = file_of("Fabrikam", &format!("fabrikam_{name}"), self.days[n]);
                world.put_file(name, &foreign);
            }
            6 => world.delete("Secret", DEVICES, name),
            7 => world.delete("VppToken", DEVICES, name),
            8 | 9 => self.create(name),
            10 | 11 => {
                let spec = json!({ "spec": { "suspend": self.dice.roll(2) == 0 } });
                world.patch("VppToken", DEVICES, name, &spec);
            }
            12 | 13 => {
                let request = self.dice.roll(1000).to_string();
                let what = self.dice.pick(&["vpptoken.io/sync-requested-at", "vpptoken.io/upload-requested-at"]);
                world.patch("VppToken", DEVICES, name, &json!({ "metadata": { "annotations": { what: request } } }));
            }
            14 => {
                let country = self.dice.pick(&["de", "fr", "it"]);
                world.patch("VppToken", DEVICES, name, &json!({ "spec": { "countryOrRegion": country } }));
            }
            15 => {
                if let Some(id) = id {
                    world.edit_in_portal(&id, "us");
                }
            }
            16 => {
                if let Some(id) = id {
                    world.delete_in_portal(&id);
                }
            }
            17 => world.delete("Secret", SYSTEM, "graph"),
            18 => world.put_secret(SYSTEM, "graph", "clientSecret", CLIENT_SECRET),
            19 => {
                world.graph.set_permission(TENANT, CLIENT, Permission::Read);
            }
            20 => {
                world.graph.set_secret_expired(TENANT, CLIENT, true);
            }
            _ => {
                if let Some(id) = id {
                    world.judge().portal_acted(world.now());
                    world.graph.set_sync_failure(TENANT, &id, true);
                }
            }
        }
    }

    /// People put right what only people can.
    fn mend(&mut self) {
        let world = self.world;
        world.put_secret(SYSTEM, "graph", "clientSecret", CLIENT_SECRET);
        world.graph.set_secret_expired(TENANT, CLIENT, false);
        world.graph.set_permission(TENANT, CLIENT, Permission::ReadWrite);
        for entity in world.graph.entities(TENANT) {
            world.graph.set_sync_failure(TENANT, &entity.id, false);
        }
        for (n, name) in NAMES.into_iter().enumerate().take(self.names.len()) {
            self.days[n] += 30;
            world.put_file(name, &file(name, self.days[n]));
            if !world.token(name).is_null() {
                world.patch("VppToken", DEVICES, name, &json!({ "spec": { "suspend": false } }));
            }
        }
    }
}
