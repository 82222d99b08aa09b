//! The log of writes, for a judge of what was done.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

/// What a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// POST, or an apply that found nothing.
    Create,
    /// PUT.
    Update,
    /// PATCH other than apply.
    Patch,
    /// PATCH by server-side apply.
    Apply,
    /// DELETE of one object.
    Delete,
    /// DELETE of many.
    DeleteCollection,
}

/// One write that was carried out. Objects are without managed fields.
#[derive(Clone, Debug)]
pub struct Write {
    /// When, by the server's clock.
    pub at: Timestamp,
    /// Who.
    pub user: String,
    /// The field manager, as `managedFields` has it; empty for deletions.
    pub manager: String,
    /// How.
    pub verb: Verb,
    /// Kind of the object.
    pub kind: String,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// `status`, or empty.
    pub subresource: String,
    /// The object before; none when it was created.
    pub old: Option<Arc<Value>>,
    /// The object after; none when it was deleted.
    pub new: Option<Arc<Value>>,
    /// The server's revision after the write.
    pub revision: u64,
    /// Nothing changed.
    pub is_noop: bool,
}
