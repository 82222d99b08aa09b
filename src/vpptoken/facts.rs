//! What was done, as it goes into a status. Pure.

use jiff::Timestamp;

use crate::api::{PendingCreate, Uploaded, VppTokenStatus, VppTokenTenant};

/// A fact that belongs into the status.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// A create was announced, in a tenant.
    Announced(PendingCreate, VppTokenTenant),
    /// The create that was announced at a time is off: it was not carried out.
    Withdrawn {
        /// When it was announced.
        since: Timestamp,
    },
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
    /// A sync that was asked for is not started.
    SyncDeclined {
        /// The request.
        request: String,
    },
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
            Self::Announced(pending, tenant) => {
                status.pending_create = Some(pending.clone());
                status.tenant = Some(tenant.clone());
            }
            Self::Withdrawn { since } => {
                status.pending_create.take_if(|pending| pending.since == *since);
            }
            Self::Owned { id, tenant, uploaded } => {
                status.token_id = Some(id.clone());
                status.tenant = Some(tenant.clone());
                status.uploaded = uploaded.clone();
                status.pending_create = None;
                status.claimed_by_another = None;
            }
            Self::Uploaded(uploaded) => status.uploaded = Some(uploaded.clone()),
            Self::SyncDeclined { request } => status.last_handled_sync_request = Some(request.clone()),
            Self::Synced { at, request } => {
                status.last_sync_trigger_time = Some(*at);
                if request.is_some() {
                    status.last_handled_sync_request = request.clone();
                }
            }
        }
    }

    /// Whether it must be written whatever the status has become meanwhile. An announcement and a refusal only count when they
    /// are written onto the status that they were decided on.
    pub fn is_fact(&self) -> bool {
        !matches!(self, Self::Announced(..) | Self::SyncDeclined { .. })
    }
}
