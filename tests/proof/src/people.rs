//! What people do: in Git, with kubectl, and in Intune's portal.

use vpptoken_operator::api::{AccountType, CreationPolicy, DeletionPolicy, ManagementPolicy, SyncSpec, VppTokenSpec};
use vpptoken_operator::vpptoken::world::Permission;

use crate::api::{Content, Definition, Object};
use crate::print::Print;
use crate::universe::{APPLE_IDS, COUNTRIES, FILES};
use crate::world::World;

/// Something that a person does; numbers choose from what the universe has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Deed {
    /// Puts another file into a Secret: one of the files, rubbish, none under the key, or no Secret.
    Secret(usize, u8),
    /// Sets the country, or leaves it out.
    Country(usize, u8),
    /// Sets whether apps are updated, or leaves it out.
    UpdateApps(usize, u8),
    /// Sets the account type.
    AccountType(usize),
    /// Sets the Apple ID.
    AppleId(usize, u8),
    /// Sets the organization, or leaves it out.
    Organization(usize, u8),
    /// Sets whether the token is deleted with its VppToken.
    DeletionPolicy(usize, bool),
    /// Sets whether a second token of one location may be created.
    CreationPolicy(usize, bool),
    /// Suspends or resumes.
    Suspend(usize, bool),
    /// Only observes, or manages.
    Observe(usize, bool),
    /// Names a token by its id: one that is there, or one that is not.
    TokenId(usize, usize),
    /// Asks for a sync.
    Sync(usize),
    /// Sets or removes the schedule.
    Schedule(usize, bool),
    /// Deletes a VppToken.
    Delete(usize),
    /// Creates a VppToken, or restores it without its status.
    Create(usize),
    /// Deletes the definition, or creates it again.
    Definition,
    /// Deletes the namespace.
    Namespace,
    /// Changes what the tenant allows.
    Allow(u8),
    /// Deletes a token in the portal.
    PortalDelete(usize),
    /// Changes the Apple ID of a token in the portal.
    PortalAppleId(usize, u8),
    /// Changes the country of a token in the portal.
    PortalCountry(usize, u8),
    /// Uploads a file onto a token in the portal.
    PortalRenew(usize, u8),
    /// Creates a token in the portal.
    PortalCreate(u8, u8),
    /// Starts a sync in the portal.
    PortalSync(usize),
}

const PERMISSIONS: [Permission; 4] = [Permission::Create, Permission::Adopt, Permission::Bind, Permission::Delete];
/// More tokens than this nobody creates.
const MOST_TOKENS: usize = 4;

/// The manifest that a VppToken begins with.
pub(crate) fn manifest() -> Option<VppTokenSpec> {
    let spec = serde_json::json!({ "tokenSecretRef": { "name": "berlin-vpp" }, "appleId": APPLE_IDS[0] });
    serde_json::from_value(spec).ok()
}

impl World {
    pub(crate) fn can_do(&self, deed: &Deed) -> bool {
        let object = |slot: usize| self.api.get(slot);
        let token = |n: usize| n < self.graph.tokens().len();
        match deed {
            Deed::Secret(slot, _) => *slot < self.slots(),
            Deed::Country(slot, _)
            | Deed::UpdateApps(slot, _)
            | Deed::AccountType(slot)
            | Deed::AppleId(slot, _)
            | Deed::Organization(slot, _)
            | Deed::DeletionPolicy(slot, _)
            | Deed::CreationPolicy(slot, _)
            | Deed::Suspend(slot, _)
            | Deed::Sync(slot)
            | Deed::Schedule(slot, _) => object(*slot).is_some(),
            Deed::Delete(slot) => object(*slot).is_some_and(|object| object.deleting.is_none()),
            Deed::Observe(slot, _) => object(*slot).is_some_and(|object| object.spec.token_id.is_some()),
            Deed::TokenId(slot, _) => object(*slot).is_some_and(|object| object.spec.token_id.is_none()),
            Deed::Create(slot) => {
                *slot < self.slots()
                    && object(*slot).is_none()
                    && self.api.definition == Definition::There
                    && !self.api.namespace_deleting
            }
            Deed::Definition => self.api.definition != Definition::Terminating,
            Deed::Namespace => !self.api.namespace_deleting,
            Deed::Allow(_) => true,
            Deed::PortalDelete(n)
            | Deed::PortalAppleId(n, _)
            | Deed::PortalCountry(n, _)
            | Deed::PortalRenew(n, _)
            | Deed::PortalSync(n) => token(*n),
            Deed::PortalCreate(..) => self.graph.tokens().len() < MOST_TOKENS,
        }
    }

    fn edit(&mut self, slot: usize, edit: impl FnOnce(&mut VppTokenSpec)) {
        let Some(object) = self.api.get(slot).cloned() else { return };
        let mut spec = object.spec.clone_inner();
        edit(&mut spec);
        if spec == *object.spec {
            return;
        }
        let spec = Print::new(spec);
        self.manifests[slot] = Some(spec.clone());
        self.not_kept[slot] = 0;
        self.api.store(slot, Object { spec, generation: object.generation + 1, ..object.clone_inner() });
    }

    pub(crate) fn person(&mut self, deed: &Deed) {
        let now = self.clock();
        match deed {
            Deed::Secret(slot, number) => {
                let content = match usize::from(*number) {
                    number if number < FILES.len() => u8::try_from(number).ok().map(Content::File),
                    number if number == FILES.len() => Some(Content::Malformed),
                    number if number == FILES.len() + 1 => Some(Content::NoKey),
                    _ => None,
                };
                let secret = &mut self.api.secrets[*slot];
                secret.content = content;
                secret.version += 1;
                self.not_kept[*slot] = 0;
            }
            Deed::Country(slot, number) => {
                let country = COUNTRIES.get(usize::from(*number)).map(|country| (*country).to_owned());
                self.edit(*slot, |spec| spec.country_or_region = country);
            }
            Deed::UpdateApps(slot, number) => {
                self.edit(*slot, |spec| spec.automatically_update_apps = (*number < 2).then_some(*number == 1));
            }
            Deed::AccountType(slot) => self.edit(*slot, |spec| {
                spec.vpp_token_account_type = match spec.vpp_token_account_type {
                    None => Some(AccountType::Education),
                    Some(_) => None,
                };
            }),
            Deed::AppleId(slot, number) => {
                let apple_id = APPLE_IDS[usize::from(*number) % APPLE_IDS.len()].to_owned();
                self.edit(*slot, |spec| spec.apple_id = Some(apple_id));
            }
            Deed::Organization(slot, number) => {
                let name = ["Contoso", "Fabrikam"].get(usize::from(*number)).map(|name| (*name).to_owned());
                self.edit(*slot, |spec| spec.organization_name = name);
            }
            Deed::DeletionPolicy(slot, delete) => self.edit(*slot, |spec| {
                spec.deletion_policy = if *delete { DeletionPolicy::Delete } else { DeletionPolicy::Retain };
            }),
            Deed::CreationPolicy(slot, always) => self.edit(*slot, |spec| {
                spec.creation_policy = if *always { CreationPolicy::Always } else { CreationPolicy::Unique };
            }),
            Deed::Suspend(slot, suspend) => self.edit(*slot, |spec| spec.suspend = *suspend),
            Deed::Observe(slot, observe) => self.edit(*slot, |spec| {
                spec.management_policy = if *observe { ManagementPolicy::Observe } else { ManagementPolicy::Manage };
            }),
            Deed::TokenId(slot, n) => {
                let id = self.graph.tokens().get(*n).map_or_else(|| "t-nowhere".to_owned(), |token| token.id.clone());
                self.edit(*slot, |spec| spec.token_id = Some(id));
            }
            Deed::Sync(slot) => {
                if let Some(object) = self.api.get(*slot).cloned() {
                    let sync_request = Some(object.sync_request.unwrap_or(0) + 1);
                    self.api.store(*slot, Object { sync_request, ..object.clone_inner() });
                }
            }
            Deed::Schedule(slot, there) => self.edit(*slot, |spec| {
                spec.sync =
                    there.then(|| SyncSpec { schedule: None, time_zone: None, interval: Some("1h".to_owned()) });
            }),
            Deed::Delete(slot) => self.delete(*slot),
            Deed::Create(slot) => {
                let spec = self.manifests[*slot].as_ref().map(Print::clone_inner).or_else(manifest);
                if let Some(spec) = spec {
                    self.create(*slot, spec);
                }
            }
            Deed::Definition => {
                if self.api.definition == Definition::Gone {
                    self.api.definition = Definition::There;
                } else {
                    self.api.definition = Definition::Terminating;
                    if self.api.objects.iter().all(Option::is_none) {
                        self.api.definition = Definition::Gone;
                    }
                    (0..self.slots()).for_each(|slot| self.delete(slot));
                }
            }
            Deed::Namespace => {
                self.api.namespace_deleting = self.api.objects.iter().any(Option::is_some);
                (0..self.slots()).for_each(|slot| self.delete(slot));
            }
            Deed::Allow(number) => {
                let permission = PERMISSIONS[usize::from(*number) % PERMISSIONS.len()];
                if !self.api.allowed.remove(&permission) {
                    self.api.allowed.insert(permission);
                }
            }
            Deed::PortalDelete(n) => {
                self.graph.change(now).remove(*n);
            }
            Deed::PortalAppleId(n, number) => {
                let token = &mut self.graph.change(now)[*n];
                token.apple_id = APPLE_IDS[usize::from(*number) % APPLE_IDS.len()].to_owned();
                token.disguise(now);
                token.changed(now);
            }
            Deed::PortalCountry(n, number) => {
                let token = &mut self.graph.change(now)[*n];
                token.country = COUNTRIES.get(usize::from(*number)).map(|country| (*country).to_owned());
                token.changed(now);
                self.not_kept.fill(0);
            }
            Deed::PortalRenew(n, number) => {
                let is_slow = self.graph.is_slow;
                let token = &mut self.graph.change(now)[*n];
                token.upload(u8::try_from(usize::from(*number) % FILES.len()).unwrap_or(0), is_slow, now);
                token.disguise(now);
                token.has_anothers_file = true;
            }
            Deed::PortalCreate(number, apple_id) => {
                let apple_id = APPLE_IDS[usize::from(*apple_id) % APPLE_IDS.len()];
                self.graph.add(u8::try_from(usize::from(*number) % FILES.len()).unwrap_or(0), apple_id, None, now);
            }
            Deed::PortalSync(n) => {
                let ends = now + jiff::SignedDuration::from_secs(self.graph.sync_takes);
                self.graph.change(now)[*n].sync_ends = Some(ends);
            }
        }
    }

    fn delete(&mut self, slot: usize) {
        // Whole seconds, as the API server writes them.
        let since = jiff::Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        if let Some(object) = self.api.get(slot).filter(|object| object.deleting.is_none()).cloned() {
            // Kubernetes counts a deletion as a new generation.
            let generation = object.generation + 1;
            self.api.store(slot, Object { deleting: Some(since), generation, ..object.clone_inner() });
        }
    }
}
