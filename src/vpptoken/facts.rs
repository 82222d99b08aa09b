//! What was done, as it goes into a status. Pure.

use jiff::Timestamp;

use crate::api::{PendingCreate, Uploaded, VppTokenStatus, VppTokenTenant};

/// A fact that belongs into the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// A create was announced.
    Announced(PendingCreate),
    /// An announced create is off.
    Withdrawn,
    /// A token was created, found again after a lost answer, or taken over.
    Owned {
        /// Its id.
        id: String,
        /// Where it lives.
        tenant: VppTokenTenant,
        /// What counts as uploaded to it; nothing of one that was taken over by its id.
        uploaded: Option<Uploaded>,
    },
    /// A file was uploaded onto the token.
    Uploaded(Uploaded),
    /// A sync was started.
    Synced {
        /// When.
        at: Timestamp,
        /// The request that it answers.
        request: Option<String>,
    },
}

impl Done {
    /// Writes the fact into a status.
    pub fn apply(&self, status: &mut VppTokenStatus) {
        match self {
            Self::Announced(pending) => status.pending_create = Some(pending.clone()),
            Self::Withdrawn => status.pending_create = None,
            Self::Owned { id, tenant, uploaded } => {
                status.token_id = Some(id.clone());
                status.tenant = Some(tenant.clone());
                status.uploaded = uploaded.clone();
                status.pending_create = None;
            }
            Self::Uploaded(uploaded) => status.uploaded = Some(uploaded.clone()),
            Self::Synced { at, request } => {
                status.last_sync_trigger_time = Some(*at);
                if request.is_some() {
                    status.last_handled_sync_request = request.clone();
                }
            }
        }
    }

    /// Whether it happened in Graph, so that it must be written whatever the status has become meanwhile. The others only
    /// count when they are written onto the status that they were decided on.
    pub fn is_fact(&self) -> bool {
        !matches!(self, Self::Announced(_) | Self::Withdrawn)
    }
}
