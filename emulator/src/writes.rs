//! All writes to a collection, by a request or by hand. Each is carried out at one moment and noted as an effect.

use crate::changes::Changes;
use crate::clock::Now;
use crate::collection::Collection;
use crate::effects::{By, Effect};
use crate::entity::{Entity, NewEntity};
use crate::entra::key;
use crate::errors::Failure;
use crate::log::Operation;
use crate::settings::Settings;
use crate::state::State;

impl State {
    /// A new entity for an uploaded file.
    pub(crate) fn create(&mut self, tenant: &str, changes: Changes, by: By) -> Result<Entity, Failure> {
        let (id, now) = (self.random.guid(), self.now());
        let (collection, settings) = self.collection(tenant);
        let created = collection.create(id, changes, now, settings)?;
        self.note(Operation::Create, by, tenant, None, Some(created.clone()), now);
        Ok(created)
    }

    /// An entity that a person adds in the portal.
    pub(crate) fn create_by_hand(&mut self, tenant: &str, new: NewEntity) -> Entity {
        let (id, now) = (self.random.guid(), self.now());
        let (collection, settings) = self.collection(tenant);
        let created = collection.create_by_hand(id, new, now, settings);
        self.note(Operation::Create, By::Hand, tenant, None, Some(created.clone()), now);
        created
    }

    /// Changes an entity as a PATCH does. `None` if there is no such entity.
    pub(crate) fn update(
        &mut self,
        tenant: &str,
        id: &str,
        changes: Changes,
        by: By,
    ) -> Option<Result<Entity, Failure>> {
        self.change(Operation::Update, by, tenant, id, |collection, now, settings| {
            collection.update(id, changes, now, settings)
        })
    }

    /// Changes an entity as a person does; returns whether it is there.
    pub(crate) fn edit(&mut self, tenant: &str, id: &str, edit: impl FnOnce(&mut Entity)) -> bool {
        let edited = self.change(Operation::Update, By::Hand, tenant, id, |collection, now, settings| {
            collection.edit(id, edit, now, settings).then(|| collection.get(id, now, settings))?.map(Ok)
        });
        edited.is_some()
    }

    /// Forces a state, or (with `None`) lets the service work it out again; returns whether the entity is there.
    pub(crate) fn force_state(&mut self, tenant: &str, id: &str, forced: Option<String>) -> bool {
        let done = self.change(Operation::Update, By::Hand, tenant, id, |collection, now, settings| {
            collection.force_state(id, forced, now, settings).then(|| collection.get(id, now, settings))?.map(Ok)
        });
        done.is_some()
    }

    /// Begins a sync. `None` if there is no such entity.
    pub(crate) fn sync(&mut self, tenant: &str, id: &str, by: By) -> Option<Result<Entity, Failure>> {
        self.change(Operation::SyncLicenses, by, tenant, id, |collection, now, settings| {
            collection.sync(id, now, settings)
        })
    }

    /// Takes an entity away; returns whether there was one.
    pub(crate) fn remove(&mut self, tenant: &str, id: &str, by: By) -> bool {
        let now = self.now();
        let (collection, settings) = self.collection(tenant);
        let Some(before) = collection.remove(id, now, settings) else { return false };
        self.note(Operation::Delete, by, tenant, Some(before), None, now);
        true
    }

    fn change(
        &mut self,
        operation: Operation,
        by: By,
        tenant: &str,
        id: &str,
        change: impl FnOnce(&mut Collection, Now, &Settings) -> Option<Result<Entity, Failure>>,
    ) -> Option<Result<Entity, Failure>> {
        let now = self.now();
        let (collection, settings) = self.collection(tenant);
        let before = collection.get(id, now, settings);
        let after = match change(collection, now, settings)? {
            Ok(after) => after,
            refused @ Err(_) => return Some(refused),
        };
        self.note(operation, by, tenant, before, Some(after.clone()), now);
        Some(Ok(after))
    }

    fn note(
        &mut self,
        operation: Operation,
        by: By,
        tenant: &str,
        before: Option<Entity>,
        after: Option<Entity>,
        now: Now,
    ) {
        let id = after.as_ref().or(before.as_ref()).map_or_else(String::new, |entity| entity.id.clone());
        let effect = Effect { sequence: 0, at: now.wall, operation, tenant: key(tenant), id, before, after, by };
        self.effects.push(effect, self.settings.log_capacity);
    }
}
