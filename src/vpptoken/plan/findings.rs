//! What was found of a token and has to be reported.

use std::collections::BTreeSet;

use crate::api::Reason;
use crate::api::conditions::ConditionUpdate;
use crate::tenant::Field;

/// What there is to report, apart from what is blocked or under way.
pub(super) enum Findings {
    /// No token was looked at: there is none, it can't be, or the VppToken is being deleted.
    WithoutToken(News),
    /// What Graph shows of the token.
    WithToken(TokenFindings),
}

/// Whether there is something to report when no token is looked at.
#[derive(Clone, Copy)]
pub(super) enum News {
    /// Nothing new: the conditions stay as they are.
    Nothing,
    /// The conditions are made anew: something is blocked, or under way.
    Progress,
}

/// What Graph shows of a token, and how that compares with the manifest.
pub(super) struct TokenFindings {
    /// The condition TokenValid.
    pub(super) valid: ConditionUpdate,
    /// The condition Synced.
    pub(super) synced: ConditionUpdate,
    /// Settings that differ from the manifest, or may only have been echoed; none when they were not compared.
    pub(super) differing: Option<BTreeSet<Field>>,
    /// What a person should know although the token is ready.
    pub(super) note: Option<ReadyNote>,
}

/// What the condition Ready says of a token that is ready, when there is something that a person should know.
pub(super) struct ReadyNote {
    pub(super) reason: Reason,
    pub(super) message: String,
}
